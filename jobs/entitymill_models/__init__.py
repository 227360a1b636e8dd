"""Extension: read models in other tools' formats, and write them as bundles.

Only `entitymill prepare` and the extension `entitymill_sparknlp` need this package. `prepare` is the command. `model_kinds`
detects the format of a model; `sparknlp_saved`, `huggingface` and `network_files` each read one format into
`token_classifier.Parts`. `lower_precision` quantizes a model, and `accuracy` measures the loss of accuracy.
"""
