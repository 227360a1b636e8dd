"""Entity tables -> the same, compact and clean: `maintain_tables.py optimize|vacuum|purge --config conf/X.yaml`."""

import sys

from entitymill.commands.maintain import main

if __name__ == "__main__":
    sys.exit(main())
