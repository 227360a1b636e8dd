"""Models as others save them, read into one form and written back: needed to prepare a model, never to run one.

`saved`, `huggingface` and `exchange` each read one kind of source into a `parts.Parts`; `reduction` lowers the precision
of its weights; `export` writes a bundle as a saved Spark NLP model.
"""
