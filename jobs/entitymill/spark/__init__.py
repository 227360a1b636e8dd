"""Spark infrastructure that does not depend on entities: sessions (classic or Spark Connect), storage, and SQL names."""
