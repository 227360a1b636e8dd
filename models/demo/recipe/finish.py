"""Average the weights of training runs into a Hugging Face directory: `python finish.py OUT WEIGHTS [WEIGHTS ...]`.

WEIGHTS are files of train.py. If there are several, their runs must have started from the same bundle, whose directory can
also be one of WEIGHTS. The script writes safetensors, vocab.txt and tokenizer.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from encoder import build, fold
from start import read_weights


def main() -> None:
    """Average the weights, fold the vectors of casings into the embedding table, and save the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--archive", type=Path, help="the Java archive of the weights' encoder, if it has one")
    options = parser.parse_args()
    runs = [read_weights(path, options.archive) for path in options.weights]
    model, tok = build(options.archive)
    averaged = {name: torch.stack([run[name] for run in runs]).mean(0) for name in runs[0]}
    model.load_state_dict(averaged, strict=False)
    fold(model)
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    tok.save(str(options.out / "tokenizer.json"))
    pieces = sorted(tok.get_vocab(), key=tok.token_to_id)
    (options.out / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
