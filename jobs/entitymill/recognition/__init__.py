"""Find the mentions in texts, from Arrow arrays to Arrow arrays, without Spark and without a JVM (step 2).

A text passes through the modules `offsets`, `sentences`, `tokens`, `tagger` and `tags_to_mentions`, in this order. The
module `recogniser` calls all of them.
"""
