"""Read files with a sample of mentions that reviewers have checked and corrected.

A sample is a set of mentions that `entitymill sample` has drawn from the `entities` table. It is reviewed in a CSV file, in
a CoNLL file, or in Label Studio, which exports JSON.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entitymill.errors import SourceError
from entitymill.terminal.conll_files import CONLL_DOCUMENT, Span, read_sentences
from entitymill.terminal.review_file_writer import CORRECT, CORRECTED_LABEL

ANSWERS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
"""The answers that are allowed in the column `correct`, in lower case; True if the answer accepts the mention."""
_NEEDED = ("label", "confidence", CORRECT)
"""Columns that a CSV file must have."""


@dataclass(frozen=True)
class Judgment:
    """The reviewer's answer for one mention of the sample.

    label, confidence: label and confidence that the model gave to the mention.
    correct: whether the reviewer accepts the mention's span and label.
    """

    label: str
    confidence: float
    correct: bool


@dataclass
class Review:
    """The reviewers' answers in a corrected file.

    judgments: the answers, one for each reviewed mention of the sample.
    unreviewed: number of mentions of the sample without an answer.
    annotated: for each label, the number of mentions that reviewers marked in the sentences shown to them.
    found: for each label, how many of these marked mentions are also in the `entities` table. `annotated` and `found` are
        None for a CSV file, in which reviewers cannot mark mentions.
    """

    judgments: list[Judgment] = field(default_factory=list)
    unreviewed: int = 0
    annotated: Counter[str] | None = None
    found: Counter[str] | None = None


def read_review(file: Path) -> Review:
    """Return the reviewers' answers in a corrected file.

    A file whose first character is [ or { is read as a JSON export of Label Studio. A file that begins with "# doc_id = " is
    read as CoNLL, and any other file as CSV.

    Raises:
        SourceError: the file cannot be read, has another format, or contains no answer. The message never quotes text of
            documents.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"--reviewed: {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"--reviewed: {file} is not in UTF-8; save it as UTF-8.") from error
    beginning = text.lstrip()[: len(CONLL_DOCUMENT)]
    if beginning.startswith(("[", "{")):
        review = _read_label_studio(file, text)
    elif beginning == CONLL_DOCUMENT:
        review = _read_conll(file, text)
    else:
        review = _read_csv(file, text)
    if not review.judgments:
        raise SourceError(
            f"--reviewed: {file} has no answer yet for any of its {review.unreviewed:,} mentions; review it first."
        )
    return review


def _read_csv(file: Path, text: str) -> Review:
    """Return the answers in a CSV file; raise SourceError if a column is missing, or a row is malformed."""
    header = text.partition("\n")[0]
    # Spreadsheets of some countries separate columns with semicolons.
    delimiter = ";" if header.count(";") > header.count(",") else ","
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    review = Review()
    try:
        for name in _NEEDED:
            if name not in (rows.fieldnames or ()):
                raise SourceError(f"--reviewed: {file} has no column {name}; it needs the columns {', '.join(_NEEDED)}.")
        for row in rows:
            judgment = _read_row(row, f"--reviewed: {file}, line {rows.line_num}")
            if judgment is None:
                review.unreviewed += 1
            else:
                review.judgments.append(judgment)
    except csv.Error as error:
        raise SourceError(f"--reviewed: {file}, line {rows.line_num} is not valid CSV; save the file as CSV.") from error
    return review


def _read_row(row: dict[str, Any], where: str) -> Judgment | None:
    """Return the reviewer's answer in a row of the CSV file; None if the reviewer has not filled in the row.

    A mention counts as wrong if the reviewer corrected its label, even if the `correct` column is empty. Raise SourceError
    if the row has no label, an unknown or contradictory answer, or an invalid confidence; the message begins with `where`.
    """
    label, answer = (row["label"] or "").strip(), (row[CORRECT] or "").strip().lower()
    corrected = (row.get(CORRECTED_LABEL) or "").strip()
    # `format_csv` has quoted labels that look like formulas.
    label, corrected = (re.sub("^'(?=[=+@-])", "", one) for one in (label, corrected))
    if not label:
        raise SourceError(f"{where}: the column label is empty; edit only {CORRECT} and {CORRECTED_LABEL}.")
    if answer and answer not in ANSWERS:
        raise SourceError(f"{where}: the column {CORRECT} must be empty or one of {', '.join(ANSWERS)}.")
    relabeled = corrected not in ("", label)
    if not answer and not relabeled:
        return None
    if relabeled and ANSWERS.get(answer, False):
        raise SourceError(
            f"{where}: {CORRECT} says yes, but {CORRECTED_LABEL} differs from label; change {CORRECT} or {CORRECTED_LABEL}."
        )
    return Judgment(label, _read_confidence(row["confidence"], where), ANSWERS.get(answer, False))


def _read_confidence(value: object, where: str) -> float:
    """Return a confidence as a number; raise SourceError if it is not a number from 0 to 1.

    The error message begins with `where`, which names the file and the line or task.
    """
    try:
        confidence = float(str(value))
    except ValueError:
        confidence = -1.0
    if not 0 <= confidence <= 1:
        raise SourceError(f"{where}: the confidence must be a number from 0 to 1, with a decimal point.")
    return confidence


def _read_label_studio(file: Path, text: str) -> Review:
    """Return the reviewers' answers in a JSON export of Label Studio.

    `text` is the content of `file`. Raise SourceError if it is not a JSON export, if a task in it was not made by
    `entitymill sample`, or if a confidence is not a number from 0 to 1.
    """
    try:
        tasks = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"--reviewed: {file} is not valid JSON; export it again from Label Studio, as JSON.") from error
    if not isinstance(tasks, list):
        raise SourceError(f"--reviewed: {file} is not a list of tasks; export it again from Label Studio, as JSON.")
    review = Review(annotated=Counter(), found=Counter())
    for number, task in enumerate(tasks, 1):
        try:
            _read_task(task, review, f"--reviewed: {file}, task {number}")
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise SourceError(
                f"--reviewed: {file}, task {number} is not a task of `entitymill sample`, or was not exported in Label "
                "Studio's format JSON; export it as JSON (JSON-MIN and CSV lack some of the data)."
            ) from error
    return review


def _read_conll(file: Path, text: str) -> Review:
    """Return the answers in a CoNLL file: all its sentences count as reviewed.

    Raise SourceError if a line or a comment is missing or malformed, or if a confidence is not a number from 0 to 1.
    """
    review = Review(annotated=Counter(), found=Counter())
    for sentence in read_sentences(text, f"--reviewed: {file}, line"):
        _add_sentence(review, sentence.marked, sentence.mentions, sentence.drawn, sentence.where)
    return review


def _read_task(task: dict[str, Any], review: Review, where: str) -> None:
    """Add the answers in one task of Label Studio, which shows one sentence, to `review`.

    A task may have been reviewed several times. Only the first review that was not skipped counts. If there is none, the
    sentence's mentions of the sample are counted in `review.unreviewed`.

    Raise SourceError if a confidence is not a number from 0 to 1; the message begins with `where`, which names the file and
    task. If the task is malformed, raise AttributeError, IndexError, KeyError, OverflowError, TypeError or ValueError.
    """
    data = task["data"]
    drawn = set(data["mention_ids"])
    finished = [annotation for annotation in task.get("annotations") or () if not annotation.get("was_cancelled")]
    if not finished:
        review.unreviewed += len(drawn)
        return
    text, offset = str(data["text"]), int(data["offset"])
    spans = (span for result in finished[0]["result"] for span in _read_spans(result, text))
    marked = {(begin + offset, end + offset, label) for begin, end, label in spans}
    _add_sentence(review, marked, data["mentions"], drawn, where)


def _add_sentence(
    review: Review, marked: set[Span], mentions: list[dict[str, Any]], drawn: Container[str], where: str
) -> None:
    """Add a reviewed sentence to `review`: one judgment per mention of the sample, and the counts `annotated` and `found`.

    A mention of the sample is correct if the reviewer marked the same span with the same label. Raise SourceError if a
    confidence is not a number from 0 to 1.

    Args:
        marked: the spans that the reviewer marked.
        mentions: all mentions that the `entities` table has in the sentence, as dicts (see `build_mention_facts`).
        drawn: ids of the mentions that are in the sample.
        where: beginning of the error message, which names the file and the line or task.
    """
    proposed: set[Span] = set()
    for mention in mentions:
        span = (int(mention["begin"]), int(mention["end"]), str(mention["label"]))
        proposed.add(span)
        if mention["mention_id"] in drawn:
            confidence = _read_confidence(mention["confidence"], where)
            review.judgments.append(Judgment(span[2], confidence, span in marked))
    if review.annotated is not None and review.found is not None:
        review.annotated.update(label for _, _, label in marked)
        review.found.update(label for _, _, label in marked & proposed)


def _read_spans(result: dict[str, Any], text: str) -> Iterator[Span]:
    """Yield (begin, end, label) for each label that `result` gives to a span; nothing if `result` does not mark a span.

    `result` is one item of the reviewer's work, as Label Studio exports it; `text` is the sentence that the reviewer saw.
    The yielded offsets are in `text`. They count code points, even if the export counts UTF-16 code units.
    """
    if result.get("type") != "labels":
        return
    value = result["value"]
    begin, end = int(value["start"]), int(value["end"])
    quoted = value.get("text")
    if text[begin:end] != quoted:
        # Old versions of Label Studio count UTF-16 code units. The quoted text shows which kind of offset this file has.
        converted = convert_from_utf16(text, begin), convert_from_utf16(text, end)
        if text[slice(*converted)] == quoted:
            begin, end = converted
    for label in value["labels"]:
        yield begin, end, str(label)


def convert_from_utf16(text: str, offset: int) -> int:
    """Convert an offset in UTF-16 code units to code points; an offset inside a surrogate pair becomes the pair's end.

    For example, in "😀a" the offset 2 becomes 1.
    """
    return len(text.encode("utf-16-le", "surrogatepass")[: 2 * offset].decode("utf-16-le", "replace"))
