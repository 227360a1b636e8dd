"""Check what stands in SQL: names and values that were quoted; other values are parameters or in DataFrames."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[2] / "jobs"
QUOTING = {"sql_name", "catalog_name", "_sql_name", "quote_name", "quote_part", "quote_literal", "_format_properties"}
"""Functions whose result is quoted."""
QUOTED_IDS = "', '.join(map(quote_literal, sorted(ids)))"
SAFE = {
    ("output_tables", "limit"): "made of an int",
    ("output_tables", "hint"): "constant text and the name of a column of ours",
    ("reader", "limit"): "an int",
    ("output_tables", "condition"): "made by callers of quoted names and literals; for DELETE constants only",
    **{(name, "view"): "a name of ours" for name in ("merge_statements", "maintenance", "erasure_from_runs")},
    ("merge_statements", "inside"): "constant text with literals from quote_literal",
    ("merge_statements", "any_slice"): "constant text",
    ("dry_runs", "RECOGNIZING_SECONDS"): "a constant",
    ("dry_runs", "is_measured"): "constant text",
    ("maintenance", "IDLE"): "a constant",
    ("maintenance", "IDLE_DAYS"): "an int",
    ("evaluate", "name"): "a name from the constant KEY",
    ("work_units", "_IS_REMOVED"): "constant text",
    ("row_checks", "cases"): "constant text and an int",
    ("row_checks", "REJECT_CODE"): "constant text",
    ("page_queries", "_DAYS"): "constant text",
    ("page_queries", "column"): "from quote_part",
    ("page_excerpts", "SAMPLE_SIZE"): "an int",
    ("page_excerpts", "_IS_SHORT"): "constant text",
    ("merge_statements", "names"): "joined from quote_part",
    ("merge_statements", "values"): "joined from quote_part",
    ("merge_statements", "changes"): "constant text with names from quote_part",
    ("merge_statements", "actions"): "constant text with names from quote_part",
    ("merge_statements", "same"): "one of two constants",
    ("output_tables", "schema"): "from quote_name",
    ("maintenance", "order"): "constant text",
    ("maintenance", "retained"): "made of an int",
    ("redaction", "named"): "from _sql_name",
    **{("page_excerpts", name): "an int, or constant text" for name in ("TOP", "_MAX_TOP")},
    **{("page_queries", name): "an int" for name in ("MAX_RUNS", "MAX_CODES", "CONFIDENCE_BINS", "SENTENCE_BIN")},
    **{("page_queries", name): "an int" for name in ("last_bin", "most")},
    ("page_queries", "day"): "constant text with a name from quote_part",
    ("page_queries", "step"): "a key of STEPS",
    ("page_queries", "bound"): "four hexadecimal digits",
    ("page_queries", "_LATEST_RUNS"): "constant text",
    ("table_setup", "name"): "from quote_name",
    ("table_setup", "columns"): "joined from _column_ddl, which quotes",
    ("table_setup", "partitions"): "constant text",
}
"""(module, variable) -> why it may stand in a statement."""
VERBS = tuple(
    f"{verb} "
    for verb in [
        "SELECT",
        "DELETE",
        "UPDATE",
        "MERGE",
        "INSERT",
        "CREATE",
        "ALTER",
        "DROP",
        "DESCRIBE",
        "OPTIMIZE",
        "VACUUM",
        "REORG",
        "SHOW",
    ]
)


CONDITION = re.compile(r"\bIN \(|\bBETWEEN |\bWHERE |(?<![=!<>])= '|<=> |\bIS (?:NOT )?NULL|\bAND |\bCASE ")
"""Matches what stands in SQL conditions and expressions, but not in messages."""
PARSED = {"expr", "where", "filter", "selectExpr", "sql"}
"""Functions that parse their arguments as SQL."""


def f_strings(module: Path) -> Iterator[ast.JoinedStr]:
    """Yield the f-strings of a module that are SQL statements, conditions or expressions."""
    tree = ast.parse(module.read_text(encoding="utf8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in PARSED]
    parsed = {id(argument) for call in calls for argument in call.args}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            first = node.values[0]
            begins = isinstance(first, ast.Constant) and str(first.value).lstrip().startswith(VERBS)
            text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            if begins or CONDITION.search(text) or id(node) in parsed:
                yield node


def unsafe(module: str, node: ast.JoinedStr) -> list[str]:
    """Return the parts of a statement that are neither quoted nor known to be safe."""
    found = []
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            value = part.value
            if ast.unparse(value) == QUOTED_IDS:
                safe = True
            elif isinstance(value, ast.Call):
                name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
                safe = name in QUOTING
            else:
                safe = isinstance(value, ast.Name) and (module, value.id) in SAFE
            if not safe:
                found.append(ast.unparse(value))
    return found


def modules() -> list[Path]:
    return sorted(JOBS.rglob("*.py"))


def test_only_quoted_names_stand_in_statements() -> None:
    checked = {(path.stem, node.lineno): unsafe(path.stem, node) for path in modules() for node in f_strings(path)}
    assert len(checked) >= 12, "this test would see nothing"
    assert {place: parts for place, parts in checked.items() if parts} == {}


def test_the_formatter_of_pyspark_sees_constant_text_only() -> None:
    """`spark.sql(text, name=frame)` must get constant text, because PySpark would replace braces in a value."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sql":
                frames = [word.arg for word in node.keywords if word.arg != "args"]
                assert not frames or (path.stem == "output_tables" and frames == ["frame"]), f"{path}:{node.lineno}"
    [sized] = [
        node
        for node in ast.walk(ast.parse((JOBS / "entitymill/tables/output_tables.py").read_text(encoding="utf8")))
        if isinstance(node, ast.FunctionDef) and node.name == "fit_file_size"
    ]
    assert "SELECT /*+ {hint} */ * FROM {{frame}}" in ast.unparse(sized)


@pytest.mark.parametrize(
    ("statement", "parts"),
    [
        ("f'DELETE FROM {self.sql_name(name)} WHERE id = {key}'", ["key"]),
        ("f'DELETE FROM {table.name}'", ["table.name"]),
        ("f'SELECT {quote_part(x)} FROM {str(y)}'", ["str(y)"]),
    ],
)
def test_this_test_finds_values(statement: str, parts: list[str]) -> None:
    node = ast.parse(statement, mode="eval").body
    assert isinstance(node, ast.JoinedStr)
    assert unsafe("any", node) == parts
