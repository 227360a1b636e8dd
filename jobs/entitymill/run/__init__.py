"""One run: source -> changes -> units -> recognition -> tables.

`extraction` runs the job, in the `steps` that need the lease, unit by unit (`units`); `dry_runs` only plans it. `guards`
refuses runs that would destroy data. `failed_documents` rejects documents that crash or hang the tagger. `summary` counts,
and `outcome` reports how a run ended. `erasure` erases documents between runs.
"""
