"""Spark infrastructure that knows nothing about entities: the session (classic or Spark Connect), storage, and SQL names."""
