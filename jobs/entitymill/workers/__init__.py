"""Recognize documents (find their mentions) on Spark executors.

An engine takes a DataFrame of documents (doc_id, text, …) and returns one with the columns `schemas.RECOGNIZED`. The module
`engine_choice` selects one of two. The core has `engine_openvino`: its workers (`worker`) run in Spark's Python workers, and
send documents to a child process (`child_process`, `recognition_child`). The extension `entitymill_sparknlp` has Spark NLP's
engine.
"""
