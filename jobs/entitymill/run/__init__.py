"""Run the job once: find new and changed documents in the source, find their mentions, and write the tables.

`extraction` runs the job, and `dry_runs` only counts what a run would do. `steps_under_lease` contains the steps for which a
run must hold the lease (the right to write the output). `work_units` splits the work into units (documents that are
published together), and `recognition_ahead` recognizes one unit while the previous one is published. `guards` refuses runs
that would destroy data; `crashing_documents` rejects documents that crash the tagger (the model's process) or make it hang.
`summary` and `core_hours` measure a run, and `exit_codes` reports how it ended. `erasure` erases documents from the tables
while no run is active.
"""
