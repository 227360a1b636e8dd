"""One run: source -> changes -> units -> recognition -> tables.

`preflight` is what it finds, `dry_runs` what it would do, `guards` what it refuses, `extraction` what it does, in `units`;
`failed_documents` are those that no worker survives; `summary` counts, `outcome` and `stopping` are how it ends.
"""
