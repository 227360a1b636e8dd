"""Text tables in, entity tables out: sentence, token and entity recognition as a Spark job.

In the order in which a document meets them: `source`, `segmentation`, `recognition` (with `engines` and `tagger`),
`mentions`, `tables`. `extraction` is one run, `settings` all that can be set.
"""

__version__ = "0.1.0"
