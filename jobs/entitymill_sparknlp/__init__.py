"""Extension: recognize documents with Spark NLP, and export model bundles as saved Spark NLP models.

In the settings, this is the engine `sparknlp`. The encoding `sparknlp` is different: the tagger runs on OpenVINO, and only
splits tokens into pieces as Spark NLP does.
"""
