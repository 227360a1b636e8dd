"""Write a sample of mentions for review, as CSV, Label Studio JSON or CoNLL.

All offsets in these files count code points, as in the tables. That includes Label Studio's JSON. Label Studio's editor
counts UTF-16 code units, and converts them to code points (`charsToCodePoints` in selection-tools.js). Old versions do not
convert them: see `review_file_reader`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entitymill.errors import OutputError
from entitymill.spark import files_on_this_machine

CSV, LABEL_STUDIO, CONLL = "csv", "label-studio", "conll"
FORMATS = (LABEL_STUDIO, CSV, CONLL)
SUFFIXES = {".csv": CSV, ".json": LABEL_STUDIO, ".conll": CONLL, ".txt": CONLL}
"""For each suffix of a file, the format that `entitymill sample` writes, unless --format names another format."""
CORRECT, CORRECTED_LABEL = "correct", "corrected_label"
"""Columns of the CSV file that reviewers fill in."""
_COLUMNS = ("mention_id", "doc_id", "begin", "end", "label", "confidence", "run_id")
_TEXT_COLUMNS = ("entity", "sentence")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_TOKEN = re.compile(r"\w+|[^\w\s]")


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

    begin: offset of the sentence in the document's text, in code points.
    mentions: all mentions that the table has in the sentence, sorted by `begin`. Mentions that are not in the sample are
        included: otherwise reviewers would add them, and the computed recall would be too low.
    drawn: ids of the mentions that are in the sample.
    """

    doc_id: str
    begin: int
    text: str
    mentions: tuple[Mention, ...]
    drawn: frozenset[str]


def choose_format(file: Path) -> str | None:
    """Return the format that fits the suffix of a file, or None if the suffix is not in SUFFIXES."""
    return SUFFIXES.get(file.suffix.lower())


def write_file(file: Path, content: str) -> None:
    """Write a text to a file in UTF-8, atomically replacing an existing file.

    Raise OutputError if the file cannot be written.
    """
    try:
        files_on_this_machine.write_atomically(file, content.encode("utf8"))
    except OSError as error:
        raise OutputError(f"--to: {file} cannot be written: {error.strerror}.") from error


def format_csv(mentions: Sequence[Mention], sentences: Sequence[Sentence] | None = None) -> str:
    """Return the content of a CSV file with one row per mention of the sample, and empty columns for the reviewers.

    Args:
        mentions: the mentions of the sample; used only if `sentences` is None.
        sentences: the sentences with the mentions of the sample; None for a file without text of documents.
    """
    columns = (*_COLUMNS, *(_TEXT_COLUMNS if sentences is not None else ()), CORRECT, CORRECTED_LABEL)
    written = io.StringIO(newline="")
    rows = csv.DictWriter(written, columns, restval="")  # ends lines with CR LF, and quotes both in texts
    rows.writeheader()
    if sentences is None:
        rows.writerows(map(_list_values, mentions))
    for sentence in sentences or ():
        for mention in sentence.mentions:
            if mention.mention_id in sentence.drawn:
                texts = {"entity": _quote_formula(mention.entity or ""), "sentence": _quote_formula(sentence.text)}
                rows.writerow({**_list_values(mention), **texts})
    return written.getvalue()


def _list_values(mention: Mention) -> dict[str, Any]:
    """Return a dict from each of _COLUMNS to the mention's value for the CSV file."""
    ids = {name: _quote_formula(getattr(mention, name)) for name in ("mention_id", "doc_id")}
    return {name: getattr(mention, name) for name in _COLUMNS} | ids


def _quote_formula(text: str) -> str:
    """Return a text with an apostrophe in front if a spreadsheet might execute it as a formula, and a number unchanged.

    Texts and ids of documents are not trusted. Source: https://owasp.org/www-community/attacks/CSV_Injection
    """
    is_formula = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def format_label_studio(sentences: Sequence[Sentence]) -> str:
    """Return a JSON list, as text, with one task per sentence for Label Studio's template for named entity recognition."""
    return json.dumps([_build_task(sentence) for sentence in sentences], ensure_ascii=False, indent=1) + "\n"


def _build_task(sentence: Sentence) -> dict[str, Any]:
    """Return Label Studio's task for one sentence, with all its mentions as predictions, which reviewers correct.

    The task's `data` repeats the mentions, because an export contains only the ids of predictions.
    """
    data = {
        "text": sentence.text,
        "doc_id": sentence.doc_id,
        "offset": sentence.begin,
        "mention_ids": [mention.mention_id for mention in sentence.mentions if mention.mention_id in sentence.drawn],
        "mentions": [
            {name: getattr(mention, name) for name in ("mention_id", "begin", "end", "label", "confidence")}
            for mention in sentence.mentions
        ],
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


def format_conll(sentences: Sequence[Sentence]) -> str:
    """Return the content of a CoNLL file: on each line a token, its begin and end in the document, and its IOB2 tag.

    The columns are separated by tabs. Each sentence is preceded by a comment with the id of the document as JSON, and
    followed by an empty line. A token is a word, or one character that is not part of a word; the model's tokens differ.
    """
    lines = []
    for sentence in sentences:
        lines.append(f"# doc_id = {json.dumps(sentence.doc_id, ensure_ascii=False)}")
        lines += ["\t".join(map(str, token)) for token in _tag_tokens(sentence)]
        lines.append("")
    return "\n".join(lines) + "\n"


def _tag_tokens(sentence: Sentence) -> Iterator[tuple[str, int, int, str]]:
    """Yield (token, begin in the document, end in the document, IOB2 tag) for each token of a sentence.

    A token never crosses the begin or end of a mention. A mention that overlaps the one before it is ignored.
    """
    at = 0
    for mention in sentence.mentions:
        begin, end = mention.begin - sentence.begin, mention.end - sentence.begin
        if begin < at:
            continue  # overlaps the mention before it: IOB2 has one tag per token
        yield from ((*token, "O") for token in _split_tokens(sentence, at, begin))
        for number, token in enumerate(_split_tokens(sentence, begin, end)):
            yield (*token, f"{'I' if number else 'B'}-{mention.label}")
        at = end
    yield from ((*token, "O") for token in _split_tokens(sentence, at, len(sentence.text)))


def _split_tokens(sentence: Sentence, begin: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield (token, begin in the document, end in the document) for each token of a part of a sentence.

    `begin` and `end` are the offsets of this part in the sentence.
    """
    for found in _TOKEN.finditer(sentence.text, begin, end):
        yield found[0], sentence.begin + found.start(), sentence.begin + found.end()
