"""3  recognition on executors. Each engine takes whole documents (doc_id, text, …) and returns `schemas.RECOGNISED`.

`engine` picks one; `openvino` is ours, whose workers (`worker`) hand documents to a process of their own (`isolation`,
`child`). Spark NLP's engine is the extension `entitymill_sparknlp`.
"""
