"""One run: source -> changes -> units -> recognition -> tables.

`preflight` is what it finds, `plan` what it would do, `guards` what it refuses, `extraction` what it does, in `units`;
`failures` are documents that no worker survives; `summary` counts, `outcome` and `stopping` are how it ends.
"""
