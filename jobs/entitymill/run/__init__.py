"""One run: source -> changes -> units -> recognition -> tables.

`guards` is what it finds and refuses, `dry_runs` what it would do, `extraction` what it does, in `units`;
`failed_documents` are those that no worker survives; `summary` counts, `outcome` is how it ends. `erasure` takes
documents out between runs.
"""
