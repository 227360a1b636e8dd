"""Write a sample of mentions for review, as CSV, as CoNLL, or as JSON for Label Studio.

All offsets in these files count code points, as in the tables. Label Studio's editor counts UTF-16 code units, but its
exports count code points, too (`charsToCodePoints` in selection-tools.js). Exports of old versions count UTF-16 code units,
which `review_file_reader` converts.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entitymill.errors import OutputError
from entitymill.spark import files_on_this_machine

CSV, LABEL_STUDIO, CONLL = "csv", "label-studio", "conll"
FORMATS = (LABEL_STUDIO, CSV, CONLL)
SUFFIXES = {".csv": CSV, ".json": LABEL_STUDIO, ".conll": CONLL, ".txt": CONLL}
"""Dict from the suffix of a file to the format in which `entitymill sample` writes the file if --format is not given."""
CORRECT, CORRECTED_LABEL = "correct", "corrected_label"
"""Columns of the CSV file that reviewers fill in."""
_COLUMNS = ("mention_id", "doc_id", "begin", "end", "label", "confidence", "run_id")
_TEXT_COLUMNS = ("entity", "sentence")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Mention:
    """One mention of the `entities` table; `begin` and `end` are offsets in the document's text, in code points.

    entity: the text of the mention; None if the file must not contain text of documents.
    """

    mention_id: str
    doc_id: str
    begin: int
    end: int
    label: str
    confidence: float
    run_id: str
    entity: str | None = None


@dataclass(frozen=True)
class Sentence:
    """A sentence that reviewers see; of a long sentence, only the part around a mention.

    begin: offset of the sentence, or of the part, in the document's text, in code points.
    text: the sentence, or the part.
    mentions: all mentions that the `entities` table has in `text`, sorted by `begin`. Mentions that are not in the sample
        are included: otherwise reviewers would add them, and the computed recall would be too low.
    drawn: ids of the mentions that are in the sample.
    """

    doc_id: str
    begin: int
    text: str
    mentions: tuple[Mention, ...]
    drawn: frozenset[str]


def choose_format(file: Path) -> str | None:
    """Return the format, from FORMATS, that fits the suffix of the file's name; None if the suffix is not in SUFFIXES."""
    return SUFFIXES.get(file.suffix.lower())


def write_file(file: Path, content: str, *, private: bool) -> None:
    """Write a text to a file in UTF-8; an existing file is replaced atomically.

    `private` says whether only this user may read the file; it must be true if the file contains text of documents. Raise
    OutputError, which names the option --to, if the file cannot be written.
    """
    try:
        files_on_this_machine.write_atomically(file, content.encode("utf8"), private=private)
    except OSError as error:
        raise OutputError(f"--to: {file} cannot be written: {error.strerror}; name another file.") from error


def format_csv(mentions: Sequence[Mention], sentences: Sequence[Sentence] | None = None) -> str:
    """Return the content of a CSV file with one row per mention of the sample, and empty columns for the reviewers.

    Args:
        mentions: the mentions of the sample; used only if `sentences` is None.
        sentences: the sentences with the mentions of the sample; None for a file without text of documents.
    """
    columns = (*_COLUMNS, *(_TEXT_COLUMNS if sentences is not None else ()), CORRECT, CORRECTED_LABEL)
    written = io.StringIO(newline="")
    rows = csv.DictWriter(written, columns, restval="")  # ends lines with CR LF; quotes texts with CR or LF
    rows.writeheader()
    if sentences is None:
        rows.writerows(map(_build_row, mentions))
    for sentence in sentences or ():
        for mention in sentence.mentions:
            if mention.mention_id in sentence.drawn:
                texts = {"entity": _quote_formula(mention.entity or ""), "sentence": _quote_formula(sentence.text)}
                rows.writerow({**_build_row(mention), **texts})
    return written.getvalue()


def _build_row(mention: Mention) -> dict[str, Any]:
    """Return a mention's values for the CSV file, as a dict with the keys _COLUMNS; possible formulas are quoted."""
    texts = {name: _quote_formula(getattr(mention, name)) for name in ("mention_id", "doc_id", "label")}
    return {name: getattr(mention, name) for name in _COLUMNS} | texts


def _quote_formula(text: str) -> str:
    """Return a text with an apostrophe in front if a spreadsheet might execute the text as a formula, else unchanged.

    Numbers such as -3 are not formulas. Texts and ids of documents, and labels of models, are not trusted.
    Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    is_formula = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def build_mention_facts(mention: Mention) -> dict[str, Any]:
    """Return a dict with a mention's id, begin, end, label and confidence.

    Review files contain these facts, so that a corrected file can be scored without the tables.
    """
    return {name: getattr(mention, name) for name in ("mention_id", "begin", "end", "label", "confidence")}


def format_label_studio(sentences: Sequence[Sentence]) -> str:
    """Return a JSON list, as text, of tasks for Label Studio, one per sentence.

    The tasks fit Label Studio's template for named entity recognition.
    """
    return json.dumps([_build_task(sentence) for sentence in sentences], ensure_ascii=False, indent=1) + "\n"


def _build_task(sentence: Sentence) -> dict[str, Any]:
    """Return Label Studio's task for one sentence. Reviewers see its mentions as predictions, and correct them.

    The task's `data` repeats the mentions, because Label Studio exports only the ids of predictions.
    """
    data = {
        "text": sentence.text,
        "doc_id": sentence.doc_id,
        "offset": sentence.begin,
        "mention_ids": [mention.mention_id for mention in sentence.mentions if mention.mention_id in sentence.drawn],
        "mentions": [build_mention_facts(mention) for mention in sentence.mentions],
    }
    results = [
        {
            "id": mention.mention_id,
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "score": mention.confidence,
            "value": {
                "start": mention.begin - sentence.begin,
                "end": mention.end - sentence.begin,
                "text": sentence.text[mention.begin - sentence.begin : mention.end - sentence.begin],
                "labels": [mention.label],
            },
        }
        for mention in sentence.mentions
    ]
    # All tasks have one version, because Label Studio shows only predictions with the version of the last imported task.
    return {"data": data, "predictions": [{"model_version": "entitymill", "result": results}]}
