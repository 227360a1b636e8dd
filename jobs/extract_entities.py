"""Extract the entities of a text table: `extract_entities.py --config conf/X.yaml`, under spark-submit or plain python."""

import sys

from entitymill.commands.extract import main

if __name__ == "__main__":
    sys.exit(main())
