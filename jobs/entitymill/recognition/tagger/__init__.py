"""Tokens in, tags out: a token classifier on OpenVINO, knowing nothing of Spark.

`bundle` reads and checks the model's files, `encoding` turns tokens into pieces, `windows` cuts sentences that are too
long, `batching` groups like lengths, `inference` runs them.
"""
