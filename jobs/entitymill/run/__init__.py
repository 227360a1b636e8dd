"""Run the job once: source -> changes -> units of work -> recognition -> tables.

`extraction` runs the job, and `dry_runs` only counts what a run would do. `steps_under_lease` contains the steps for which a
run must hold the lease (the right to write the output). `units` splits the work into units (documents that are published
together), and `recognition_ahead` recognizes one unit while the previous one is published. `guards` refuses runs that would
destroy data; `crashing_documents` rejects documents that crash or hang the tagger (the process that runs the model).
`summary` and `core_hours` measure a run, and `outcome` reports how it ended. `erasure` erases documents between runs.
"""
