"""Convert a trained token classifier to a model bundle or a Spark NLP model on disk: `prepare_model.py SOURCE DEST`."""

import sys

from entitymill_models.prepare_command import main

if __name__ == "__main__":
    sys.exit(main())
