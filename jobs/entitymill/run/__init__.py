"""Run the job once: source -> changes -> units of work -> recognition -> tables.

`extraction` runs the job, and `dry_runs` only plans a run. `steps` contains the steps for which a run must hold the lease.
`units` splits the work into units (documents that are published together). `guards` refuses runs that would destroy data.
`crashing_documents` rejects documents that crash or hang the tagger. `summary` counts what a run did, and `outcome` reports
how a run ended. `erasure` erases documents between runs.
"""
