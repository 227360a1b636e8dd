"""Extension: engine `sparknlp`, Spark NLP's encoding of tokens, and the export to its format."""
