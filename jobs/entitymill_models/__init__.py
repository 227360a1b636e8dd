"""Extension: read models in other tools' formats, and write them as bundles, the model directories of this program.

Only `entitymill prepare` and the extension `entitymill_sparknlp` need this package. `prepare_command` is the command.
`model_formats` detects the format of a model; `sparknlp_saved`, `huggingface` and `network_import` each read one format
into `imported_classifier.Parts`. `lower_precision` quantizes a model, and `precision_loss` measures the loss of accuracy.
"""
