"""Extension: models in other tools' formats, read into one form and written as bundles. Needed to prepare a model only.

`model_kinds` tells sources apart; `sparknlp_saved`, `huggingface` and `network_files` each read one kind into a
`token_classifier.Parts`. `lower_precision` quantizes it, `accuracy` measures what that costs. `prepare` is the command.
"""
