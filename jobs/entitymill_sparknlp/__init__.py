"""Extension: recognize documents with Spark NLP, and export model bundles as saved Spark NLP models.

In the settings, this is the engine `sparknlp`. The encoding `sparknlp` is different: the model runs on OpenVINO, but
`subwords_as_in_sparknlp` splits the tokens into pieces (subwords) as Spark NLP does.
"""
