"""What a run stands on, knowing nothing of entities: Spark's session (classic or `spark_connect`), storage, names in SQL."""
