"""Recognize documents on Spark executors.

An engine takes a DataFrame of documents (doc_id, text, …) and returns a DataFrame with the columns
`schemas.RECOGNIZED`. The module `engine_choice` selects one of two engines. The engine in `engine_openvino` is part of
the core: its workers (`worker`) run in Spark's Python workers and send documents to a child process (`child_process`,
`recognition_child`). The other engine is Spark NLP's, in the extension `entitymill_sparknlp`.
"""
