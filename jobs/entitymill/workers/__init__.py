"""3  recognition on executors. Each engine takes complete documents (doc_id, text, …) and returns `schemas.RECOGNISED`.

`engine` selects an engine. That of `openvino` is part of the core: each of its workers (`worker`) sends documents to a child
process (`isolation`, `child`). Spark NLP's engine is the extension `entitymill_sparknlp`.
"""
