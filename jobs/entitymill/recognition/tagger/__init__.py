"""Tokens in, tags out: a token classifier on OpenVINO, knowing nothing of Spark.

`bundle` reads and checks the model's files, `encoding` turns tokens into pieces, `model_rows` sentences into what the model
takes, `packing` puts many into one row and teaches the `network` to take them, `inference` runs it.
"""
