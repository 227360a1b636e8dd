"""Compact and clean up entity tables: `maintain_tables.py --config conf/X.yaml optimize|vacuum|purge`."""

import sys

from entitymill.commands.maintain import main

if __name__ == "__main__":
    sys.exit(main())
