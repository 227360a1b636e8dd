"""Run the job once: source -> changes -> units of work -> recognition -> tables.

`extraction` runs the job, and `dry_runs` only counts what a run would do. `steps_under_lease` contains the steps for
which a run must hold the lease (the right to write the output). `units` splits the work into units (documents that are
published together). `recognition_ahead` finds the mentions of the next unit while the current one is published.
`guards` refuses runs that would destroy data. `crashing_documents` rejects documents that crash or hang the tagger (the
process that runs the model). `summary` counts what a run did, and `outcome` reports how a run ended. `erasure` erases
documents between runs.
"""
