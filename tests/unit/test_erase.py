"""Test, without Spark, what `entitymill erase` prints and asks, and how it finds ids in messages."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entitymill.commands import erase as command
from entitymill.run import erasure
from entitymill.run.erasure import Findings
from entitymill.tables.erasure_from_runs import IdFinder

FOUND = Findings({"entities": {"b": 3}, "documents": {"b": 1}, "rejects": {}, "runs": {"b": 2}}, in_old_files=True)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def erased(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Replace Spark and the erasure, as if the tables held FOUND; return the list of ids of each started erasure."""
    begun: list[Sequence[str]] = []

    def erase(_spark: object, _settings: object, ids: Sequence[str], found: Findings) -> dict[str, int]:
        begun.append(ids)
        return found.totals()

    monkeypatch.setattr(command, "open_session", lambda *_: None)
    monkeypatch.setattr(erasure, "find_documents", lambda *_: FOUND)
    monkeypatch.setattr(erasure, "erase", erase)
    return begun


def call(tmp_path: Path, *options: str) -> int:
    chosen = ["source.path=s3a://lake/in", "output.path=s3a://lake/out", f"log={tmp_path}/log"]
    return command.main([*(item for one in chosen for item in ("--set", one)), "--ids", "b", *options])


@pytest.mark.parametrize(
    ("answer", "options", "begun"),
    [
        ("y\n", (), True),
        ("yes\n", (), True),
        ("n\n", (), False),
        ("\n", (), False),
        ("", (), False),
        ("n\n", ("--yes",), True),
    ],
)
def test_on_a_terminal_it_asks_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    erased: list[Sequence[str]],
    answer: str,
    options: tuple[str, ...],
    *,
    begun: bool,
) -> None:
    screen = _Terminal()
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    monkeypatch.setattr(sys, "stdout", screen)
    assert call(tmp_path, *options) == 0
    assert erased == ([["b"]] if begun else [])
    asked = "Erase 1 documents, 3 mentions, 0 rejects, messages in 2 rows of runs and all older versions of the tables"
    assert (asked in screen.getvalue()) == (not options)
    assert ("nothing was changed" in screen.getvalue()) != begun


def test_without_a_terminal_it_needs_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, erased: list[Sequence[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert call(tmp_path) == 2
    assert "check with --dry-run what would be erased, then add --yes" in " ".join(capsys.readouterr().err.split())
    assert erased == []
    assert call(tmp_path, "--yes") == 0
    assert erased == [["b"]]


def test_a_dry_run_says_how_much_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, erased: list[Sequence[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal("y\n"))
    assert call(tmp_path, "--dry-run", "--yes") == 0
    assert erased == []
    said = capsys.readouterr().out
    assert "would erase 1 documents, 3 mentions, 0 rejects" in said
    assert said.endswith("nothing was changed\n")

    monkeypatch.setattr(erasure, "find_documents", lambda *_: replace(FOUND, run_is_active=True))
    assert call(tmp_path, "--dry-run") == 0
    assert capsys.readouterr().out.endswith("nothing was changed; a run may be active, and an erasure would wait for it\n")


@pytest.mark.parametrize(
    ("in_old_files", "said"),
    [
        (False, "nor in a file of an older version"),
        (None, "cannot be searched; `entitymill maintain … purge` deletes them"),
    ],
)
def test_ids_that_are_nowhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    erased: list[Sequence[str]],
    capsys: pytest.CaptureFixture[str],
    in_old_files: bool | None,
    said: str,
) -> None:
    """If no table has the ids, the command must ask nothing; it still starts the erasure, which searches again."""
    monkeypatch.setattr(sys, "stdin", _Terminal("n\n"))
    monkeypatch.setattr(erasure, "find_documents", lambda *_: Findings({"documents": {}, "runs": {}}, in_old_files))

    def find_nothing(_spark: object, _settings: object, ids: Sequence[str], _found: Findings) -> dict[str, int]:
        erased.append(ids)
        return {}

    monkeypatch.setattr(erasure, "erase", find_nothing)
    for options, begun in ((("--yes",), [["b"]]), (("--dry-run",), [])):
        erased.clear()
        assert call(tmp_path, *options) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert erased == begun
        assert out.startswith("None of the 1 ids is in documents, entities, rejects or runs of s3a://lake/out")
        assert said in out and out.endswith("nothing was erased; check the ids.")


@pytest.mark.parametrize(
    ("doc_id", "text", "named"),
    [
        ("7", "the row '7' has no text", True),
        ("7", "the rows 17, 70 and a7", False),
        ("7", "document 7:10-14", True),
        ("it's", 'the row "it\'s" has', True),
        ("a\x1bb", r"the row 'a\x1bb' has", True),
        ("\u00fc", json.dumps("id = '\u00fc'"), True),
        ("/2026/x", "at s3/2026/x.", True),
        ("b", None, False),
    ],
)
def test_ids_are_found_as_messages_write_them(doc_id: str, text: str | None, *, named: bool) -> None:
    finder = IdFinder([doc_id, "another"])
    assert finder.find(text) == finder.narrow_to([text, None]).find(text) == ({doc_id} if named else set())


@settings(max_examples=500)
@given(st.lists(st.text("ab1_ -.'\"\u00fc\\", min_size=1, max_size=4)), st.lists(st.text("ab1_ -.'\"\u00fc\\", max_size=12)))
def test_a_narrowed_search_finds_the_same_ids(ids: list[str], texts: list[str]) -> None:
    finder = IdFinder(ids)
    narrowed = finder.narrow_to(texts)
    assert [narrowed.find(text) for text in texts] == [finder.find(text) for text in texts]


def test_a_narrowed_search_looks_only_for_ids_whose_words_occur() -> None:
    """With 100,000 ids and megabytes of text, a search for each id would take minutes."""
    assert IdFinder([f"a{number}" for number in range(100)]).narrow_to(["a7 and a42x", "b a8"])._forms == [
        ("a7", "a7"), ("a8", "a8"),
    ]  # fmt: skip
