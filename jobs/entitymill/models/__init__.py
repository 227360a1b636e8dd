"""Models as others save them, read into one form and written back: needed to prepare a model, never to run one.

`saved`, `huggingface` and `networks` each read one kind of source into a `classifier.Parts`; `reduction` lowers its
precision; `accuracy` says what that costs; `export` writes a bundle as a saved Spark NLP model.
"""
