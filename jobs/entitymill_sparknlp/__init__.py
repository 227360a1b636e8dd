"""Extension: the engine `sparknlp`, the encoding `sparknlp`, and the export of bundles as saved Spark NLP models."""
