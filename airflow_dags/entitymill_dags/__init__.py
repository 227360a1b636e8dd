"""Entity Mill's DAGs, made from `tables.yaml`."""
