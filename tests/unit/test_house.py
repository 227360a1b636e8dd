"""Check rules for the code: which modules may import which, which may use what of Spark, and how long code may be."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from entitymill.spark import installation

JOBS = Path(__file__).parents[2] / "jobs"
MODULES = {
    ".".join(path.relative_to(JOBS).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("entitymill", *installation.EXTENSIONS)
    for path in sorted((JOBS / package).rglob("*.py"))
}
SPARK = ("pyspark", "py4j", "delta")
HEAVY = ("openvino", "numpy", "pyarrow")
LAYERS = ("settings", "spark", "recognition", "workers", "source", "tables", "run", "terminal", "commands", "cli")
"""Packages and modules of the core, in order; none may import a later one."""
WORDS = ("entitymill.spark.sql_text", "entitymill.recognition.tagger")
"""Modules of later packages that every package may import."""
WITHOUT = {
    # Recognition and the preparation of models are usable without Spark.
    "entitymill.recognition": SPARK,
    "entitymill_models": SPARK,
    # Tables do not depend on the source of their rows.
    "entitymill.tables": ("entitymill.workers", "entitymill.recognition"),
    # Wrong settings and help are printed before large libraries are imported.
    "entitymill.settings": (*SPARK, *HEAVY),
    "entitymill.cli": (*SPARK, *HEAVY),
    "entitymill.commands.common": (*SPARK, *HEAVY),
    "entitymill.commands.extract": (*SPARK, *HEAVY),
}
"""Package or module -> packages that it must not import at its top level."""
PRIVATE = re.compile(r"\._(jvm|jsc|jdf|jsparkSession|jsession|gateway)\b")
PRIVATE_ALLOWED = {
    "entitymill.source.source_columns",
    "entitymill_sparknlp.pipeline_stages",
    "entitymill.source.unreadable_source",
    "entitymill.spark.private_session",
    "entitymill.run.core_hours",
    "entitymill.spark.spark_connect",
    "entitymill.spark.jvm_launch",
    "entitymill.spark.session",
    "entitymill.spark.storage",
    "entitymill.tables.half_made_tables",
}
"""Modules that may use private parts of classic Spark, where nothing public exists: to copy a session, and for Hadoop's
client, Parquet's footers, the class path and the location of a catalog."""
WRITES = re.compile(r"(?<!delta)\.write\b(?![()])|\.writeTo\(|\.writeStream\b")
MAX_LINES, MAX_LINES_OF_FUNCTION = 310, 70


def imports(path: Path) -> Iterator[str]:
    """Yield the modules that a module imports at its top level."""
    tree = ast.parse(path.read_text(encoding="utf8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [one for one in inside if one in MODULES]
            yield from modules or [str(node.module)]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a circle, or an empty list."""
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imported_by(package: str, forbidden: Iterable[str]) -> list[str]:
    return [
        f"{name} imports {imported}"
        for name, path in MODULES.items()
        if within(name, package)
        for imported in imports(path)
        if imported not in WORDS and any(within(imported, one) for one in forbidden)
    ]


@pytest.mark.parametrize("package", WITHOUT)
def test_what_a_package_does_without(package: str) -> None:
    assert not imported_by(package, WITHOUT[package])


@pytest.mark.parametrize(("place", "layer"), list(enumerate(LAYERS)), ids=LAYERS)
def test_nobody_imports_upwards(place: int, layer: str) -> None:
    assert not imported_by(f"entitymill.{layer}", [f"entitymill.{later}" for later in LAYERS[place + 1 :]])


def test_what_scripts_import_of_us_is_there() -> None:
    """Scripts may import only names that exist; this includes recipes and benchmarks, which no test runs."""
    scripts = [path for place in ("models", "tests", "examples") for path in (JOBS.parent / place).rglob("*.py")]
    lost = [
        f"{path.name}: {node.module}.{alias.name}"
        for path in scripts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.ImportFrom) and within(str(node.module), "entitymill")
        for alias in node.names
        if f"{node.module}.{alias.name}" not in MODULES
        and not hasattr(importlib.import_module(str(node.module)), alias.name)
    ]
    assert lost == []


def test_the_core_imports_no_extension() -> None:
    """The core must not import an extension even inside a function; it looks extensions up by name."""
    found = [
        f"{name}: {node.module}"
        for name, path in MODULES.items()
        if within(name, "entitymill")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.ImportFrom) and any(within(str(node.module), one) for one in installation.EXTENSIONS)
    ]
    assert found == []
    assert imported_by("entitymill", installation.EXTENSIONS) == []


def test_unit_tests_do_without_spark_nlp() -> None:
    """`make test-lowest` runs them where Spark NLP is not installed."""
    graph = {name: set(imports(path)) for name, path in MODULES.items()}
    need_it = {name for name, imported in graph.items() if any(within(one, "sparknlp") for one in imported)}
    while more := {name for name, imported in graph.items() if imported & need_it} - need_it:
        need_it |= more
    assert need_it, "no module imports Spark NLP: this test finds nothing"
    assert not [path.name for path in Path(__file__).parent.glob("*.py") if set(imports(path)) & need_it]


def test_every_package_has_its_layer() -> None:
    core = [name for name, path in MODULES.items() if path.name == "__init__.py" and within(name, "entitymill")]
    packages = {name.split(".")[1] for name in core if "." in name}
    assert packages == set(LAYERS) - {"cli"}


def test_no_two_modules_have_one_name() -> None:
    names = [name.rpartition(".")[2] for name in MODULES]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_there_are_no_circles() -> None:
    graph = {name: {one for one in imports(path) if one in MODULES and one != name} for name, path in MODULES.items()}
    assert circle(graph) == []


def test_private_parts_of_spark_are_touched_where_it_is_known() -> None:
    found = {name for name, path in MODULES.items() if PRIVATE.search(path.read_text(encoding="utf8"))}
    assert found == PRIVATE_ALLOWED


def test_tables_alone_are_written_by_their_package() -> None:
    writing = {name for name, path in MODULES.items() if WRITES.search(path.read_text(encoding="utf8"))}
    assert {name for name in writing if not within(name, "entitymill.tables")} == set()


def test_every_message_goes_to_the_log_that_hides_texts() -> None:
    """Only loggers below `entitymill` write to the log of `commands.common`; Python prints messages of others unchanged."""
    named = re.compile(r"getLogger\((?!\"(?:entitymill|py4j)[\".]|f\"entitymill\.|\))(.*?)\)")
    found = {
        f"{name}: {match[1]}"
        for name, path in MODULES.items()
        for match in named.finditer(path.read_text(encoding="utf8"))
        if match[1] != "__name__" or not within(name, "entitymill")
    }
    assert found == set()


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MAX_LINES_OF_FUNCTION
    ]
    assert long == []


def test_no_module_is_larger_than_a_page_or_two() -> None:
    lines = {name: len(path.read_text(encoding="utf8").splitlines()) for name, path in MODULES.items()}
    assert {name for name, number in lines.items() if number > MAX_LINES} == set()
