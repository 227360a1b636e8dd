"""Models as others save them, read into one form and written back: needed to prepare a model, never to run one.

`model_kinds` tells sources apart; `sparknlp_saved`, `huggingface` and `network_files` each read one kind into a
`token_classifier.Parts`. `lower_precision` lowers its precision, `accuracy` says what that costs; `export` writes a bundle
as a saved Spark NLP model.
"""
