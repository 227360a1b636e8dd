"""Open Spark sessions (classic or Spark Connect), access storage, and quote SQL names. No module here handles mentions."""
