"""Measure the best F1 that the sentence detector's input allows: `python window_limit.py DATA [--epochs N]`.

The detector sees five characters on either side of a mark, which is `.`, `:`, `?`, `!`, `;` or a line break. The script
prints two limits on DATA/ewt_dev.jsonl. For the first, the text is broken at each mark where a gold sentence ends. For the
second, a network learns from the same windows in running text with line breaks (DATA/gum_open_genres.jsonl).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

MARKS = frozenset(".:?!;\n")
WIDTH = 5
"""Characters on either side of a mark."""
BATCH = 128


@dataclass(frozen=True)
class Document:
    """A text, its gold sentences, and its marks: the characters at which a sentence may end.

    sentences: begin and end of each gold sentence, without white space at its ends.
    marks: a dict from the offset of each mark to whether a sentence ends at the mark.
    """

    text: str
    sentences: list[tuple[int, int]]
    marks: dict[int, bool]


def trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    """Return a span without the white space at its ends."""
    inner = text[begin:end]
    return begin + len(inner) - len(inner.lstrip()), begin + len(inner.rstrip())


def read(path: Path) -> list[Document]:
    """Read the documents in a file with lines of the form `{"text", "sents": [[begin, end], …]}`."""
    documents = []
    for line in path.read_text(encoding="utf8").splitlines():
        content = json.loads(line)
        text = content["text"]
        sentences = [trimmed(text, *span) for span in content["sents"]]
        # A sentence ends at its last character if that is a mark, else at the first mark before the next sentence.
        edges = [range(end - 1, begin) for (_, end), (begin, _) in pairwise(sentences)]
        last = {next((at for at in gap if text[at] in MARKS), None) for gap in edges}
        documents.append(
            Document(text, sentences, {at: at in last for at, character in enumerate(text) if character in MARKS})
        )
    return documents


def f1(documents: Iterable[Document], decide: Callable[[Document], Sequence[bool]]) -> float:
    """Return F1 of exact sentence spans, if the text is broken after the marks that `decide` chooses."""
    both = found = gold = 0
    for document in documents:
        chosen = [at + 1 for at, breaks in zip(document.marks, decide(document), strict=True) if breaks]
        edges = [0, *chosen, len(document.text)]
        spans = {trimmed(document.text, *span) for span in pairwise(edges)}
        spans = {(begin, end) for begin, end in spans if begin < end}
        both += len(spans & set(document.sentences))
        found += len(spans)
        gold += len(document.sentences)
    return 2 * both / (found + gold)


def windows(document: Document) -> torch.Tensor:
    """Return the code points around each mark, shape [marks, 2 * WIDTH + 1]; code points above 255 become 255."""
    padded = "\0" * WIDTH + document.text + "\0" * WIDTH
    rows = [[min(ord(character), 255) for character in padded[at : at + 2 * WIDTH + 1]] for at in document.marks]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, 2 * WIDTH + 1)


def network() -> torch.nn.Module:
    """Return a network that turns code points [marks, 2 * WIDTH + 1] into the logits [marks, 1] of sentence ends."""
    size = 32
    return torch.nn.Sequential(
        *(torch.nn.Embedding(256, size), torch.nn.Flatten(), torch.nn.Dropout(0.2)),
        *(torch.nn.Linear(size * (2 * WIDTH + 1), 256), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(256, 1)),
    )


def main() -> None:
    """Print both limits, the second after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.manual_seed(0)
    trained, scored = read(options.data / "gum_open_genres.jsonl"), read(options.data / "ewt_dev.jsonl")
    print(f"oracle: F1 {f1(scored, lambda document: list(document.marks.values())):.4f}")
    inputs = torch.cat([windows(document) for document in trained])
    wanted = torch.tensor([float(breaks) for document in trained for breaks in document.marks.values()])
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01)
    for epoch in range(options.epochs):
        model.train()
        for chosen in torch.randperm(len(inputs)).split(BATCH):
            logits = model(inputs[chosen]).squeeze(-1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            score = f1(scored, lambda document: (model(windows(document)).squeeze(-1) > 0).tolist())
        print(f"epoch {epoch + 1}: F1 {score:.4f}", flush=True)


if __name__ == "__main__":
    main()
