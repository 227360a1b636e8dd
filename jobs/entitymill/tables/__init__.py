"""4  mentions -> tables: the only package that writes.

`layout` says where tables are, `table_setup` whether they are ours, and makes them; `lease` lets one run at a time,
`commits` makes one change, `publisher` brings documents in and out, and takes back what a death left, as `half_made_tables`
does of whole tables. `staging` collects what is swapped in at the end, `temporary_tables` are what a run writes for itself,
`runs` keeps the record, `table_rows` makes rows. `maintenance` and `privacy` are work on tables between runs.
"""

from entitymill.tables.layout import NAMES, Tables
from entitymill.tables.table_rows import Stamp

__all__ = ["NAMES", "Stamp", "Tables"]
