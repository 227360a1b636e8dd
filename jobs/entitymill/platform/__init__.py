"""What a run stands on, and knows nothing of entities: Spark's session (classic or `connect`), storage, names in SQL."""
