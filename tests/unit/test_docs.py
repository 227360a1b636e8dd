"""Check that the pages have short lines, cells and sentences, and tables that match the code. `make docs` checks links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import types as T

from entitymill import schemas
from entitymill.source import row_checks

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*TOP, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
LONGEST_LINE, LONGEST_ROW, LONGEST_CELL, LONGEST_README, MAX_SENTENCE_WORDS = 120, 200, 25, 130, 25
EXAMPLES = {"conf/articles.yaml", "conf/mine.yaml", "conf/tickets.yaml"}
"""Names on the pages for files that the reader creates."""
BUILT = ("build/", "/")
"""Prefixes of paths of files that a build creates, or that are outside the repository."""
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.-]+(/[\w.-]+)+\.(py|md|yaml|json)")
TABLES = {
    "entities": schemas.entities_schema([]),
    "documents": schemas.DOCUMENTS,
    "rejects": schemas.REJECTS,
    "runs": schemas.RUNS,
    "erasures": schemas.ERASURES,
    "annotations": schemas.ANNOTATION_TABLE,
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf8")


def prose(page: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page outside code blocks, with their numbers."""
    inside = False
    for number, line in enumerate(text_of(page).splitlines(), 1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            yield number, line


def is_row(line: str) -> bool:
    return line.startswith("|")


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str) -> None:
    spans = [(number, span) for number, line in prose(page) for span in _SPAN.findall(line) if _PATH.fullmatch(span)]
    places = (ROOT, ROOT / "jobs", ROOT / "jobs" / "entitymill", ROOT / "jobs" / "entitymill_sparknlp")
    lost = [
        f"{page}:{number}: {span}"
        for number, span in spans
        if span not in EXAMPLES and not span.startswith(BUILT) and not any((place / span).exists() for place in places)
    ]
    assert lost == []


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_short(page: str) -> None:
    long = [
        f"{page}:{number}: {len(line)} characters"
        for number, line in prose(page)
        if len(line) > (LONGEST_ROW if is_row(line) else LONGEST_LINE)
    ]
    assert long == []


@pytest.mark.parametrize("page", PAGES)
def test_cells_are_short(page: str) -> None:
    long = [
        f"{page}:{number}: {cell.strip()}"
        for number, line in prose(page)
        if is_row(line)
        for cell in re.split(r"(?<!\\)\|", line)
        if len(cell.split()) > LONGEST_CELL
    ]
    assert long == []


def sentences(page: str) -> Iterator[str]:
    """Yield the sentences of paragraphs and list items; a colon or semicolon ends a sentence, a code span is one word."""
    blocks: list[list[str]] = [[]]
    for _, line in prose(page):
        item = re.match(r"\s*([-*]|\d+\.)\s+", line)
        if item or not line.strip() or is_row(line) or line.startswith("#"):
            blocks.append([])
        if not is_row(line) and not line.startswith("#"):
            blocks[-1].append(line[item.end() :] if item else line.strip())
    for block in blocks:
        yield from re.split(r"(?<=[.!?:;])\s+", _SPAN.sub("X", " ".join(block)))


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page: str) -> None:
    assert [sentence for sentence in sentences(page) if len(sentence.split()) > MAX_SENTENCE_WORDS] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_says_first_for_whom_it_is(page: str) -> None:
    first = next(line for _, line in prose(page) if line and not line.startswith("#"))
    assert first.startswith(("For ", "This page is for ")), f"{page}: {first}"


def test_the_readme_is_short() -> None:
    lines = text_of("README.md").splitlines()
    assert len(lines) <= LONGEST_README
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


def test_the_readme_leads_to_every_page() -> None:
    reached = {target.partition("#")[0] for _, line in prose("README.md") for target in _LINK.findall(line)}
    assert [page for page in PAGES if page != "README.md" and page not in reached] == []


@pytest.mark.parametrize(
    ("link", "mark"),
    [
        ("docs/queries.md#reading-the-tables", "pl.read_delta"),
        ("docs/python.md#dataframes", "entitymill.mentions("),
        ("docs/operating.md#check-a-sample-by-hand", "--reviewed export.json"),
        ("docs/cluster.md#spark-4", ".venv-spark41/bin/python"),
    ],
)
def test_the_readme_leads_to_the_code_for_each_stranger(link: str, mark: str) -> None:
    """The links of the README must lead to the code that tests/integration/operations/test_first_five_minutes.py runs."""
    assert f"]({link})" in text_of("README.md")
    page, _, anchor = link.partition("#")
    sections = re.split(r"^## ", text_of(page), flags=re.MULTILINE)
    assert [section.splitlines()[0].lower().replace(" ", "-") for section in sections if mark in section] == [anchor]


def test_every_code_of_a_refused_row_is_explained() -> None:
    page = text_of("docs/troubleshooting.md")
    assert [code for code in row_checks.REJECT_CODES if f"| `{code}` |" not in page] == []


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_on_the_page_with_type_and_comment(table: str) -> None:
    page = text_of("docs/tables.md")
    section = page.partition(f"\n## {table}\n")[2].partition("\n## ")[0]
    assert section, f"docs/tables.md has no section {table}"
    lost = []
    for field in TABLES[table].fields:
        comment = field.metadata.get("comment")
        row = f"| `{field.name}` | {_kind(field.dataType)} | {comment} |" if comment else f"| `{field.name}` |"
        lost += [] if row in section else [row]
    assert lost == []


def _kind(kind: T.DataType) -> str:
    return kind.simpleString()
