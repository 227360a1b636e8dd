"""Build Entity Mill's DAGs from `tables.yaml`."""
