"""Extension: recognize documents with Spark NLP, and export model bundles as saved Spark NLP models.

In the settings, this is the engine `sparknlp`. The encoding `sparknlp` only splits tokens as Spark NLP does.
"""
