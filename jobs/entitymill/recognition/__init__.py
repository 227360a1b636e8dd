"""2  text -> sentences -> tokens -> tags -> mentions. Uses neither Spark nor a JVM: Arrow in, Arrow out.

A text passes through `offsets`, `sentences`, `tokens`, `tagger` and `mentions`, in this order; `recogniser` calls them all.
"""
