"""Find the mentions in texts, without Spark and without a JVM; texts and results are Arrow arrays.

A text passes through the modules `offsets`, `sentences`, `tokens`, `tagger` and `tags_to_mentions`, in this order. The
module `recognizer` calls all of them.
"""
