"""4  mentions -> tables: the only package that writes.

`layout` says where tables are, `table_checks` whether they are ours, `table_creation` makes them; `lease` lets one run at a
time, `commits` makes one change (with `commit_lock` on S3), `publisher` brings documents in and out, `recovery` and
`half_made_tables` take back what a death left. `staging` collects what is swapped in at the end (`parquet_swap` by
renaming), `temporary_tables` are what a run writes for itself, `rejects` and `runs` keep the records, `table_rows` makes
rows. `maintenance`, `erasure` and `redaction` are work on tables between runs.
"""

from entitymill.tables.layout import NAMES, Tables
from entitymill.tables.table_rows import Stamp

__all__ = ["NAMES", "Stamp", "Tables"]
