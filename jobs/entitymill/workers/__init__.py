"""Recognize documents (find their mentions) on Spark executors.

An engine takes a DataFrame of documents (doc_id, text, …) and returns a DataFrame with the columns `schemas.RECOGNIZED`.
There are two engines; the module `engine_choice` selects one. With `engine_openvino`, the module `worker` runs in Spark's
Python workers. It sends documents to a child process, which runs the model (`child_process`, `child_recognition`). The
other engine uses Spark NLP, and is in the extension `entitymill_sparknlp`.
"""
