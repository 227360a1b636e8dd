"""Create, write and maintain the tables of an output (step 4); no other package writes tables.

- Tables: `layout` locates, reads and changes them; `table_setup` checks and creates them; `half_made_tables` removes what
  a failed creation left; `table_rows` builds their rows.
- Runs: `lease` lets one run work at a time, and `heartbeats` show that it is alive. `commits` numbers each commit, so that
  Delta refuses those of older runs. `runs` is the table `runs`; `recovery` repairs tables after a run that died.
- Documents: `publisher` publishes and removes them; `unit_tables` stores the texts of a run's units; `parquet_export`
  copies `entities` for readers without Delta.
- Between runs: `maintenance` compacts and purges; `privacy` and `masked_texts` redact; `run_messages` finds ids in
  `runs`; `data_files` reads files of older versions.
"""

from entitymill.tables.layout import NAMES, Tables
from entitymill.tables.table_rows import Stamp

__all__ = ["NAMES", "Stamp", "Tables"]
