"""Measure a process that only loads a model: `python tests/bench/first_sentence.py WAY DIRECTORY PRECISION FILE`.

The process prints JSON with the seconds from its start to its first tagged sentence, including imports and compilation. The
JSON also has the resident memory in MB at that time, and after the sentences of the JSON file FILE were tagged. WAY is
packed or by-length if DIRECTORY is a bundle, and pipeline if it is a Hugging Face directory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from entitymill.recognition.tagger import Precision

FIRST = ["They", "met", "in", "Paris", "."]
Tag = Callable[[list[list[str]]], object]


def packed(directory: Path, precision: Precision) -> Tag:
    """Tag as the job does."""
    import numpy as np  # noqa: PLC0415  - each way imports what it needs, and is timed

    from entitymill.recognition.tagger import Execution, bundle  # noqa: PLC0415
    from entitymill.recognition.tagger.inference import Tagger  # noqa: PLC0415

    manifest, files = bundle.read_directory(directory)
    tagger = Tagger.load(files, manifest, Execution(precision))
    return lambda every: tagger.tag([t for tokens in every for t in tokens], np.array([len(tokens) for tokens in every]))


def by_length(directory: Path, precision: Precision) -> Tag:
    """Tag in padded batches of similar length, as version 0.1.0 did."""
    import numpy as np  # noqa: PLC0415
    from padded_batches import PaddedTagger  # noqa: PLC0415

    tagger = PaddedTagger(directory, precision)
    return lambda every: tagger.tag([t for tokens in every for t in tokens], np.array([len(tokens) for tokens in every]))


def pipeline(directory: Path, precision: Precision) -> Tag:
    """Tag as transformers does, on one thread, in batches of 8; `precision` is f32."""
    del precision
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForTokenClassification.from_pretrained(directory)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "tokenizer.json"),
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
    )
    built = transformers.pipeline("token-classification", model, tokenizer=tokenizer, batch_size=8, device="cpu")
    return lambda every: built([" ".join(tokens) for tokens in every])


WAYS = {"packed": packed, "by-length": by_length, "pipeline": pipeline}


def main() -> None:
    """Load a model, tag, and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("directory", type=Path)
    parser.add_argument("precision", choices=("f32", "bf16", "int8"))
    parser.add_argument("sentences", type=Path)
    options = parser.parse_args()
    own = psutil.Process()
    tag = WAYS[options.way](options.directory, options.precision)
    tag([FIRST])
    first = time.time() - own.create_time()
    loaded = own.memory_info().rss
    tag(json.loads(options.sentences.read_text(encoding="utf8")))
    print(json.dumps({"seconds": first, "loaded": loaded / 1e6, "after": own.memory_info().rss / 1e6}))


if __name__ == "__main__":
    main()
