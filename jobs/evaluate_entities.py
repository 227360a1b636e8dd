"""Entity table against gold table -> precision, recall, F1: `evaluate_entities.py --entities PATH --gold PATH`."""

import sys

from entitymill.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
