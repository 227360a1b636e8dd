"""Open Spark sessions (classic or Spark Connect), check the installation, access storage and local files, quote SQL names.

No module here handles documents, or the mentions of entities in them.
"""
