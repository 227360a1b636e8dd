"""Find the mentions of entities (such as people and places) in texts, without Spark and without a JVM.

A text passes through the modules `offsets`, `sentences`, `tokens`, `tagger` and `tags_to_mentions`, in this order. The
module `recognizer` calls all of them. Texts and results are Arrow arrays.
"""
