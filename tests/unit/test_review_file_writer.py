"""Test writing and reading the files in which people review mentions, and the scores that are computed from them."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entitymill.commands import evaluate, sample
from entitymill.errors import SettingsError, SourceError
from entitymill.tables.mention_sample import STRATEGIES, allocate_sample, choose_hash_limit
from entitymill.terminal.conll_files import format_conll
from entitymill.terminal.review_file_reader import Judgment, Review, convert_from_utf16, read_review
from entitymill.terminal.review_file_writer import (
    Mention,
    Sentence,
    choose_format,
    format_csv,
    format_label_studio,
)
from entitymill.terminal.review_scores import ALL, compute_wilson_interval, find_threshold, score_review

TEXT = "😀👍🏽 Angela Merkel flew 🛫 to Paris."
"""A sentence that begins at code point 100 of its document."""
BEGINS = {"Angela Merkel": "PER", "Paris": "LOC"}


def mention(entity: str, label: str, confidence: float = 0.9) -> Mention:
    begin = 100 + TEXT.index(entity)
    end = begin + len(entity)
    return Mention(f"a:{begin}-{end}", "a", begin, end, label, confidence, "r1", entity)


MENTIONS = (mention("Angela Merkel", "PER", 0.75), mention("Paris", "LOC"))
SENTENCE = Sentence("a", 100, TEXT, MENTIONS, frozenset([MENTIONS[0].mention_id]))


def exported(*spans: tuple[str, str], utf16: bool = False, **annotation: Any) -> list[dict[str, Any]]:
    """Return the sentence with these spans as a Label Studio export, which has only the ids of predictions."""
    [task] = json.loads(format_label_studio([SENTENCE]))

    def place(offset: int) -> int:
        return len(TEXT[:offset].encode("utf-16-le")) // 2 if utf16 else offset

    results = [
        {
            "type": "labels",
            "value": {
                "start": place(TEXT.index(entity)),
                "end": place(TEXT.index(entity) + len(entity)),
                "text": entity,
                "labels": [label],
            },
        }
        for entity, label in spans
    ]
    return [{"id": 7, "data": task["data"], "predictions": [3], "annotations": [{"result": results, **annotation}]}]


def read(directory: Path, content: str | list[dict[str, Any]]) -> Review:
    file = directory / "reviewed"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf8")
    return read_review(file)


def test_the_suffix_chooses_the_format() -> None:
    names = ("a.csv", "b.JSON", "c.conll", "d.txt", "e.xlsx", "f")
    assert [choose_format(Path(name)) for name in names] == ["csv", "label-studio", "conll", "conll", None, None]
    assert sample._STRATEGIES == STRATEGIES


def test_a_csv_file_without_text_has_ids_and_offsets_only() -> None:
    written = format_csv(MENTIONS)
    assert written.splitlines() == [
        "mention_id,doc_id,begin,end,label,confidence,run_id,correct,corrected_label",
        "a:104-117,a,104,117,PER,0.75,r1,,",
        "a:128-133,a,128,133,LOC,0.9,r1,,",
    ]


def test_a_csv_file_with_text_has_the_drawn_mentions_and_their_sentences() -> None:
    [row] = csv.DictReader(io.StringIO(format_csv((), [SENTENCE])))
    assert (row["entity"], row["sentence"], row["correct"], row["corrected_label"]) == ("Angela Merkel", TEXT, "", "")
    assert TEXT[int(row["begin"]) - 100 : int(row["end"]) - 100] == "Angela Merkel"


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\tx", "\rx"])
def test_no_text_is_a_formula_in_a_spreadsheet(text: str) -> None:
    mention = replace(MENTIONS[0], entity=text, doc_id=text, mention_id=f"{text}:0-1", label=text)
    sentence = Sentence(text, 104, text, (mention,), frozenset([mention.mention_id]))
    for written in (format_csv((), [sentence]), format_csv([mention])):
        [row] = csv.DictReader(io.StringIO(written, newline=""))
        quoted = text if text in ("+1", "-1") else f"'{text}"
        assert (row["doc_id"], row["mention_id"], row["label"]) == (quoted, f"'{text}:0-1", quoted)
        assert (row.get("entity"), row.get("sentence")) in ((quoted, quoted), (None, None))


def test_offsets_for_label_studio_are_code_points() -> None:
    """Label Studio's editor converts JavaScript's offsets to code points (charsToCodePoints in selection-tools.js)."""
    [task] = json.loads(format_label_studio([SENTENCE]))
    assert {name: task["data"][name] for name in ("text", "doc_id", "offset", "mention_ids")} == {
        "text": TEXT,
        "doc_id": "a",
        "offset": 100,
        "mention_ids": ["a:104-117"],
    }
    values = [result["value"] for result in task["predictions"][0]["result"]]
    assert values == [
        {"start": 4, "end": 17, "text": "Angela Merkel", "labels": ["PER"]},
        {"start": 28, "end": 33, "text": "Paris", "labels": ["LOC"]},
    ]
    assert all(TEXT[value["start"] : value["end"]] == value["text"] for value in values)


def test_tasks_of_all_runs_have_one_version() -> None:
    """All tasks must have one model version: Label Studio prelabels only tasks with the version of the last task."""
    later = replace(SENTENCE, mentions=tuple(replace(mention, run_id="later") for mention in SENTENCE.mentions))
    tasks = json.loads(format_label_studio([SENTENCE, later]))
    assert len({task["predictions"][0]["model_version"] for task in tasks}) == 1


def test_conll_has_offsets_of_the_document_and_tokens_within_mentions() -> None:
    lines = format_conll([SENTENCE]).splitlines()
    assert lines[0] == '# doc_id = "a"'
    assert lines[1].startswith('# mentions = [{"mention_id": "a:104-117", "begin": 104, "end": 117, "label": "PER", ')
    assert lines[-1] == ""
    tokens = [line.split("\t") for line in lines[2:-1]]
    assert all(TEXT[int(begin) - 100 : int(end) - 100] == token for token, begin, end, _ in tokens)
    assert [(token, tag) for token, _, _, tag in tokens if tag != "O"] == [
        ("Angela", "B-PER"),
        ("Merkel", "I-PER"),
        ("Paris", "B-LOC"),
    ]


def test_a_mention_within_a_word_is_a_token_of_its_own() -> None:
    one = Sentence("b", 0, "proParis", (Mention("b:3-8", "b", 3, 8, "LOC", 1.0, "r"),), frozenset())
    assert format_conll([one]).splitlines()[2:4] == ["pro\t0\t3\tO", "Paris\t3\t8\tB-LOC"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_corrected_conll_file_is_read(tmp_path: Path, line_end: str) -> None:
    """A word within a mention, the label of another, and a third sentence with a tag of its own are corrected."""
    written = format_conll([SENTENCE, replace(SENTENCE, drawn=frozenset(one.mention_id for one in MENTIONS)), SENTENCE])
    unchanged = read(tmp_path, written)
    assert unchanged.judgments == [
        Judgment("PER", 0.75, correct=True),
        Judgment("PER", 0.75, correct=True),
        Judgment("LOC", 0.9, correct=True),
        Judgment("PER", 0.75, correct=True),
    ]
    assert unchanged.annotated == unchanged.found == {"PER": 3, "LOC": 3}
    first, second, third = written.split("\n\n")[:3]
    first = first.replace("B-PER", "O")  # leaves Merkel with I-PER, which begins a mention
    second = second.replace("B-LOC", "B-ORG")
    third = third.replace("flew\t118\t122\tO", "flew\t118\t122\tB-MISC")
    assert "B-MISC" in third
    (tmp_path / "edited").write_bytes(f"{first}\n\n{second}\n\n{third}\n".replace("\n", line_end).encode())
    review = read_review(tmp_path / "edited")
    assert [judgment.correct for judgment in review.judgments] == [False, True, False, True]
    assert review.annotated == {"PER": 3, "LOC": 2, "ORG": 1, "MISC": 1}
    assert review.found == {"PER": 2, "LOC": 2}


def test_overlapping_mentions_are_not_all_in_a_conll_file(tmp_path: Path) -> None:
    inner = replace(MENTIONS[0], mention_id="inner", begin=111, entity="Merkel", label="ORG")
    both = replace(SENTENCE, mentions=(MENTIONS[0], inner), drawn=frozenset([MENTIONS[0].mention_id, "inner"]))
    assert read(tmp_path, format_conll([both])).judgments == [Judgment("PER", 0.75, correct=True)]


def test_blanks_at_the_end_of_a_mention_are_in_no_token_of_a_conll_file(tmp_path: Path) -> None:
    """Without `mentions.trim`, a mention may end with a no-break space."""
    one = Mention("b:0-6", "b", 0, 6, "LOC", 0.8, "r")
    written = format_conll([Sentence("b", 0, "Paris\u00a0!", (one,), frozenset(["b:0-6"]))])
    review = read(tmp_path, written)
    assert (review.judgments, review.found) == ([Judgment("LOC", 0.8, correct=True)], {"LOC": 1})


def test_a_corrected_csv_file_is_read(tmp_path: Path) -> None:
    rows = ["label,confidence,correct,corrected_label"]
    rows += ["PER,0.9,yes,", "PER,0.8,NO,", "PER,0.7,,LOC", "LOC,0.6,1,LOC", "LOC,0.5,,", "LOC,0.4,0,"]
    review = read(tmp_path, "\ufeff" + "\n".join(rows))
    assert review.judgments == [
        Judgment("PER", 0.9, correct=True),
        Judgment("PER", 0.8, correct=False),
        Judgment("PER", 0.7, correct=False),
        Judgment("LOC", 0.6, correct=True),
        Judgment("LOC", 0.4, correct=False),
    ]
    assert (review.unreviewed, review.annotated) == (1, None)
    assert read(tmp_path, "\n".join(rows).replace(",", ";")).judgments == review.judgments


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column label"),
        ("label,confidence\nPER,0.5\n", "has no column correct; it needs the columns label, confidence, correct"),
        ("label,confidence,correct\nPER,0.5,Secret\n", "line 2: the column correct must be empty or one of yes, true, 1"),
        ("label,confidence,correct\nPER,Secret,yes\n", "line 2: the confidence must be a number from 0 to 1"),
        ("label,confidence,correct\nPER,nan,yes\n", "line 2: the confidence must be a number from 0 to 1"),
        ("label,confidence,correct\n,0.5,yes\n", "line 2: the column label is empty"),
        ("label,confidence,correct,corrected_label\nPER,0.5,yes,Secret\n", "line 2: correct says yes, but"),
        ("label,confidence,correct\nPER,0.5,\nPER,0.5\n", "no answer yet for any of its 2 mentions; review it first"),
        ('# doc_id = "a"\n# mentions = [\nSecret\t0\t6\tO\n', "line 2 does not belong here; edit only the tags"),
        ('# doc_id = "a"\n# mentions = []\nSecret\t0\t6\n', "line 3 does not belong here"),
        ('# doc_id = "a"\n# mentions = []\nSecret\t0\t6\tE-PER\n', "line 3 does not belong here"),
        (
            '# doc_id = "a"\n# mentions = [{"mention_id": "Secret", "drawn": true}]\nA\t0\t1\tO\n',
            "line 2 does not belong here",
        ),
        (' # doc_id = "a"\n# mentions = []\nSecret\t0\t6\tO\n\n# doc_id = "b"\n', "line 1 does not belong here"),
        (
            (
                '# doc_id = "a"\n'
                '# mentions = [{"mention_id": [], "label": "", "confidence": 1, "drawn": 0, "begin": 0, "end": 1}]'
            ),
            "line 2 does not belong here",
        ),
        ('\n# doc_id = "a"\nSecret\t0\t6\tO\n', "line 3 does not belong here"),
        ('# doc_id = "a"\n# mentions = []\n\n# doc_id = "b"\n', "line 1: there are no tokens after this comment"),
        ('# doc_id = "a"\n# mentions = []\nA\t0\t1\tO\n\n# mentions = []\nSecret\t0\t6\tO\n', "line 5 does not belong"),
        ('# doc_id = "a"\n# mentions = []\nA\t0\t1\tO\n\nSecret\t0\t6\tO\n', "line 5 does not belong here"),
        ('# doc_id = "a"\n# mentions = []\nSecret\t0\t6\tO\n', "no answer yet for any of its 0 mentions"),
        ('[{"data": {"text": "Secret"}', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"data": {"text": "Secret"}}', "is not a list of tasks"),
        ('[{"id": 1, "text": "Secret", "label": []}]', "task 1 is not a task of `entitymill sample`"),
        (
            '# doc_id = "a"\n# mentions = [{"mention_id": "", "label": "", "confidence": 1, "drawn": 1, "begin": 1e999}]\n',
            "line 2 does not belong here",
        ),
        (
            '[{"data": {"mention_ids": ["Secret"], "text": "Secret", "offset": 1e999}, "annotations": [{"result": []}]}]',
            "task 1 is not a task of `entitymill sample`",
        ),
        ('["Secret"]', "task 1 is not a task of `entitymill sample`"),
    ],
)
def test_a_broken_file_says_why_and_quotes_no_text(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(SourceError, match=f"^--reviewed: {tmp_path}/reviewed") as raised:
        read(tmp_path, content)
    assert message in str(raised.value)
    assert "Secret" not in str(raised.value)


def test_a_file_that_is_missing_or_no_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        read_review(tmp_path / "nowhere.csv")
    (tmp_path / "table.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(SourceError, match="is not in UTF-8"):
        read_review(tmp_path / "table.csv")


@pytest.mark.parametrize("utf16", [False, True])
def test_a_label_studio_export_is_read_whatever_its_offsets_count(tmp_path: Path, utf16: bool) -> None:
    review = read(tmp_path, exported(("Angela Merkel", "PER"), ("Paris", "ORG"), ("flew", "MISC"), utf16=utf16))
    assert review.judgments == [Judgment("PER", 0.75, correct=True)], "only drawn mentions are judged"
    assert review.annotated == {"PER": 1, "ORG": 1, "MISC": 1}
    assert review.found == {"PER": 1}
    scores = score_review(review, 0.95)
    assert {label: score.recall for label, score in scores.items()} == {"PER": 1, "ORG": 0, "MISC": 0, ALL: 1 / 3}


def test_an_export_of_label_studio_itself_is_read() -> None:
    """Label Studio 1.23.2 imported three tasks, showed their predictions, and exported its project as JSON.

    Each task has the same sentence. In the second one, whose mentions are both in the sample, Paris was removed.
    """
    review = read_review(Path(__file__).parents[1] / "golden" / "label_studio_export.json")
    per, loc = Judgment("PER", 0.75, correct=True), Judgment("LOC", 0.9, correct=False)
    assert review.judgments == [per, per, loc, per]
    assert review.annotated == review.found == {"PER": 3, "LOC": 2}


def test_a_span_that_was_moved_is_wrong(tmp_path: Path) -> None:
    review = read(tmp_path, exported(("Angela", "PER")))
    assert review.judgments == [Judgment("PER", 0.75, correct=False)]
    assert (review.annotated, review.found) == ({"PER": 1}, {})


def test_skipped_tasks_are_not_reviewed(tmp_path: Path) -> None:
    [skipped] = exported(("Paris", "LOC"), was_cancelled=True)
    [open_task] = exported()
    open_task["annotations"] = []
    review = read(tmp_path, [skipped, open_task, *exported(("Angela Merkel", "PER"))])
    assert (len(review.judgments), review.unreviewed) == (1, 2)


def test_utf16_units_become_code_points() -> None:
    assert [convert_from_utf16("a😀b", offset) for offset in range(6)] == [0, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("correct", "reviewed", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),  # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (29, 29, (0.8830, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(correct: int, reviewed: int, interval: tuple[float, float]) -> None:
    assert compute_wilson_interval(correct, reviewed) == pytest.approx(interval, abs=6e-5)


def judgments(text: str) -> list[Judgment]:
    """Parse confidences with a + for a correct and a - for a wrong mention, such as "0.9+ 0.8-"."""
    return [Judgment("PER", float(word[:-1]), correct=word[-1] == "+") for word in text.split()]


@pytest.mark.parametrize(
    ("reviewed", "wanted", "found"),
    [
        ("0.9+ 0.8+ 0.7-", 0.95, (0.8, 1.0, 2)),
        ("0.9+ 0.8+ 0.7-", 0.6, (0.0, 2 / 3, 3)),  # everything is precise enough
        ("0.9- 0.8+ 0.7+ 0.6+", 0.75, (0.0, 0.75, 4)),  # although the most confident mention is wrong
        ("0.9- 0.8+ 0.7+ 0.6+ 0.5-", 0.75, (0.6, 0.75, 4)),
        ("0.9+ 0.9- 0.7+", 0.9, None),  # no threshold separates equal confidences
        ("0.98765+ 0.5-", 1.0, (0.9876, 1.0, 1)),  # rounded down, so that the mention stays
        ("0.90004+ 0.90001- 0.5-", 1.0, None),  # both are 0.9000 or more
        ("", 0.9, None),
    ],
)
def test_the_smallest_sufficient_threshold_is_found(
    reviewed: str, wanted: float, found: tuple[float, float, int] | None
) -> None:
    threshold = find_threshold(judgments(reviewed), wanted)
    shown = None if threshold is None else (threshold.min_confidence, threshold.precision, threshold.mentions)
    assert shown == found


def test_labels_are_scored_apart_and_together() -> None:
    review = Review([Judgment("PER", 0.9, correct=True), Judgment("LOC", 0.8, correct=False)])
    scores = score_review(review, 0.95)
    assert {label: (one.reviewed, one.correct, one.precision) for label, one in scores.items()} == {
        "LOC": (1, 0, 0.0),
        "PER": (1, 1, 1.0),
        ALL: (2, 1, 0.5),
    }
    assert scores[ALL].recall is None
    assert set(score_review(review, 0.95, ["PER"])) == {"PER", ALL}


def test_the_command_prints_scores_without_spark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)  # importing it would be an error
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "reviewed.csv"
    file.write_text("label,confidence,correct\nPER,0.9,yes\nPER,0.5,no\nPER,0.4,\n")
    assert evaluate.main(["--reviewed", str(file), "--wanted-precision", "1", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["PER"]["threshold"] == {"min_confidence": 0.9, "precision": 1.0, "mentions": 1}
    assert evaluate.main(["--reviewed", str(file), "--labels", "PERSON"]) == 2
    assert f"--labels: PERSON is the label of no reviewed mention in {file}; check its spelling" in capsys.readouterr().err
    assert evaluate.main(["--reviewed", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "0.0945 to 0.9055" in shown
    assert "0.9 (n=1)" in shown
    assert "1 mentions of the sample were not reviewed" in shown
    assert "recall" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--entities", "a"],
        ["--gold", "a"],
        ["--entities", "a", "--reviewed", "b"],
        ["--entities", "a", "--gold", "b", "--reviewed", "c"],
        ["--reviewed", "c", "--wanted-precision", "95"],
    ],
)
def test_exactly_one_form_of_evaluate_is_accepted(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(arguments)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "x.json"], "--format: label-studio contains text of documents: add --show-text"),
        (["--to", "x.csv", "--format", "conll"], "--format: conll contains text of documents: add --show-text"),
        (["--to", "x.xlsx"], "--to: the suffix of x.xlsx names no format"),
        (["--to", "nowhere/x.csv"], "--to: there is no directory nowhere"),
        (["--to", "."], "--to: the suffix of . names no format"),
        (["--to", "x.csv", "--count", "100001"], "--count: 100,001 is too many: a sample can have at most 100,000"),
    ],
)
def test_bad_options_are_refused_before_spark_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sample.main(["--set", "source.path=x", "--set", "output.path=y", *options]) == SettingsError.exit_code
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_existing_file_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("corrected")
    assert sample.main(["--set", "source.path=x", "--set", "output.path=y", "--to", "x.csv"]) == 2
    assert "x.csv exists already" in capsys.readouterr().err
    assert (tmp_path / "x.csv").read_text() == "corrected"


@pytest.mark.parametrize(
    ("sizes", "count", "shares"),
    [
        ({"A": 100, "B": 100}, 10, {"A": 5, "B": 5}),
        ({"A": 100, "B": 2, None: 100}, 20, {"B": 2, "A": 9, None: 9}),
        ({"A": 3, "B": 2}, 20, {"B": 2, "A": 3}),
        ({"A": 5, "B": 5, "C": 5}, 2, {"A": 0, "B": 1, "C": 1}),
        ({"A": 5}, 3, {"A": 3}),
    ],
)
def test_strata_share_evenly(sizes: dict[str | None, int], count: int, shares: dict[str | None, int]) -> None:
    assert allocate_sample(sizes, count) == shares


def test_the_hash_limit_is_a_long_and_lets_all_rows_of_small_strata_pass() -> None:
    assert choose_hash_limit(5, 100) == 2**63 - 1
    assert choose_hash_limit(1, 1) == 2**63 - 1
    assert choose_hash_limit(25, 400) == -1, "half of the rows"
    assert -(2**63) <= choose_hash_limit(1, 10**18) < -(2**62)
