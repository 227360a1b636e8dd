"""2  text -> sentences -> tokens -> tags -> mentions. Knows neither Spark nor a JVM: Arrow in, Arrow out.

In the order in which a text meets them: `offsets`, `sentences`, `tokens`, `tagger`, `mentions`; `recogniser` is all of it.
"""
