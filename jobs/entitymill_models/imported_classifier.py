"""Define `Parts`, a token classifier in memory; read a model's text, JSON and vocabulary files, and write a bundle's files.

The pieces of a model are the subwords in its vocabulary. The network's input consists of their ids.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import openvino as ov

from entitymill.errors import ModelError
from entitymill.recognition.tagger import bundle

Casing = Literal["cased", "uncased"]
MAX_FILE_BYTES = 256 * 2**20
"""Maximum size, in bytes, of vocabulary, tokenizer and configuration files."""


@dataclass(frozen=True)
class Parts:
    """The parts of a token classifier.

    network: a network that takes input_ids and attention_mask, int64, shape [batch, length], and returns logits, float32,
        shape [batch, length, tags].
    labels: the tags, such as B-PER, in the order of the logits.
    tokenizer: the text of a tokenizer.json; None if the model has only a vocabulary.
    vocabulary: the pieces (subwords) in the order of their ids; None if there is a tokenizer.json.
    casing: whether the tokenizer distinguishes upper and lower case.
    max_length: maximum number of pieces in one input row of the network, including special pieces such as [CLS].
    source: a phrase about the model's origin, such as "an ONNX network", for the manifest.
    limit: the largest max_length that the network can process; None if unknown.
    sparknlp_max_length: Spark NLP's parameter maxSentenceLength, the maximum number of pieces in a sentence if Spark NLP
        runs the model.
    """

    network: ov.Model
    labels: tuple[str, ...]
    tokenizer: str | None
    vocabulary: tuple[str, ...] | None
    casing: Casing
    max_length: int
    source: str
    limit: int | None = None
    sparknlp_max_length: int = 128


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; raise ModelError if it cannot be read, or is larger than MAX_FILE_BYTES."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"{path} is larger than {MAX_FILE_BYTES:,} bytes, the limit for all files except the network: copy the "
                "model again."
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): copy the model again.") from error


def read_text(path: Path) -> str:
    """Return the content of a text file; raise ModelError if it cannot be read, is not UTF-8, or exceeds MAX_FILE_BYTES."""
    try:
        return read_bytes(path).decode("utf8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text: copy the model again.") from error


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in a file; raise ModelError if the file cannot be read, or is not a JSON object."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> dict[str, object]:
    """Return the JSON object in a text; raise ModelError if the text is not a JSON object.

    `where` says where the text comes from, such as a path, for error messages.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is not JSON: copy the model again.") from error
    if not isinstance(parsed, dict):
        raise ModelError(f"{where} is not a JSON object: copy the model again.")
    return parsed


def sort_by_number(numbered: dict[str, int], what: str, where: str) -> tuple[str, ...]:
    """Return the keys of `numbered`, sorted by number; raise ModelError unless the numbers are 0, 1, 2, … without a gap.

    For error messages, `what` says what the keys are, such as "tags", and `where` is the path of the model.
    """
    ordered = sorted(numbered, key=lambda name: numbered[name])
    if not ordered or [numbered[name] for name in ordered] != list(range(len(ordered))):
        raise ModelError(
            f"The {what} of {where} must be numbered 0, 1, 2, … without gaps, but the numbers are missing or have gaps: "
            "copy the model again."
        )
    return tuple(ordered)


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Return the pieces (subwords) in a vocab.txt, one per line, in the order of their ids, which are 0, 1, 2, …

    Empty lines at the end are ignored. Raise ModelError if the file cannot be read, or lists the same piece twice.
    """
    pieces = tuple(line.removesuffix("\r") for line in read_text(path).rstrip("\n").split("\n"))
    if len(set(pieces)) != len(pieces):
        raise ModelError(f"{path} lists the same piece (subword) twice, so it is not a vocabulary: copy the model again.")
    return pieces


def write_parts(parts: Parts, directory: Path) -> None:
    """Write all files of a bundle, except the manifest, to a directory: network, tags, and tokenizer or vocabulary.

    Raises:
        ModelError: a piece of the vocabulary contains a line break; the tags are not distinct or lack O; or a tag other than
            O lacks the prefix B- or I-, or has a label that cannot be a directory's name. Tags are checked after writing.
    """
    ov.save_model(parts.network, directory / bundle.NETWORK, compress_to_fp16=False)
    if parts.tokenizer is not None:
        (directory / bundle.TOKENIZER).write_text(parts.tokenizer, encoding="utf8")
    else:
        pieces = parts.vocabulary or ()
        if any("\n" in piece or "\r" in piece for piece in pieces):
            raise ModelError(
                "A piece of the model's vocabulary contains a line break, which vocab.txt cannot store: prepare a "
                "directory in which the model has a tokenizer.json."
            )
        (directory / bundle.VOCABULARY).write_bytes("".join(f"{piece}\n" for piece in pieces).encode("utf8"))
    (directory / bundle.LABELS).write_text(json.dumps(parts.labels) + "\n", encoding="utf8")
    bundle.read_tags(directory / bundle.LABELS)
