"""Extension: read models in other tools' formats, and write them as bundles. Only `entitymill prepare` needs it.

`model_kinds` detects the format of a source; `sparknlp_saved`, `huggingface` and `network_files` each read one format into
`token_classifier.Parts`. `lower_precision` quantizes a model, `accuracy` measures the loss. `prepare` is the command.
"""
