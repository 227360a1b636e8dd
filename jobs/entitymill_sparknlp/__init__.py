"""Extension: recognize documents with Spark NLP, and export model bundles as saved Spark NLP models.

The setting `recognition.engine: sparknlp` makes a run use Spark NLP. `recognition.encoding: sparknlp` does not: the model
runs on OpenVINO, but `subwords_as_in_sparknlp` splits the tokens into pieces (subwords) as Spark NLP does.
"""
