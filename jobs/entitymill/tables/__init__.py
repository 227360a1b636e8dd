"""5  mentions -> tables: the only package that writes.

`layout` says where tables are and makes them, `lease` lets one run at a time, `commits` makes one change, `publisher` brings
documents in and out, `recovery` takes back what a death left half, `staging` collects what is swapped in at the end
(`parquet` by renaming), `rejects` and `runs` keep the records, `rows` makes rows.
"""

from entitymill.tables.layout import NAMES, Tables
from entitymill.tables.rows import Stamp

__all__ = ["NAMES", "Stamp", "Tables"]
