"""4  mentions -> tables: the only package that writes.

`layout` says where tables are and how they are changed, `table_setup` whether they are ours, and creates them. `lease`
lets one run work at a time, `heartbeats` are its signs of life; `commits` numbers each commit, so that Delta refuses
those of older runs. `publisher` brings documents in and out, `recovery` makes tables fit after a run that died,
`unit_tables` are what a run keeps for itself, `runs` is the record, `table_rows` makes rows, `parquet_export` copies
`entities` for readers without Delta. `maintenance` and `privacy` are work on tables between runs; `run_messages` finds
ids in `runs`, `data_files` reads files of older versions.
"""

from entitymill.tables.layout import NAMES, Tables
from entitymill.tables.table_rows import Stamp

__all__ = ["NAMES", "Stamp", "Tables"]
