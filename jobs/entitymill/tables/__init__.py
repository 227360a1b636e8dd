"""Create, write and maintain the tables of an output (the tables of one job); no other package writes tables.

- Tables: `output_tables` locates, reads and changes tables; `table_setup` checks and creates them. `half_made_tables` cleans
  up what a failed creation left behind; `merge_statements` runs MERGE statements.
- Runs: `lease` lets one run at a time work on an output, and `heartbeats` show that a run is alive. `numbered_commits` makes
  Delta refuse commits of older runs. `recovery` repairs tables after a run died. `runs` reads and writes the `runs` table;
  `runs_without_spark` reads it faster, if it is on this machine's disk.
- Documents: `publisher` publishes and removes documents. `temporary_tables` stores the texts of a run's units of work
  (documents that are committed together). `parquet_export` copies `entities` for readers without Delta.
- Between runs: `maintenance` compacts tables and deletes files that are no longer needed; `redaction` and `text_masking`
  write a copy of the source with masked mentions; `mention_sample` draws a sample of mentions for review;
  `erasure_from_runs` finds and erases document ids in `runs`; `data_files` reads and lists data files, also old ones.
"""

from entitymill.tables.output_tables import NAMES, Tables

__all__ = ["NAMES", "Tables"]
