"""Compute precision, recall and F1 of an entity table: `evaluate_entities.py --entities PATH --gold PATH`."""

import sys

from entitymill.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
