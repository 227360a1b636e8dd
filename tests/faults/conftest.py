from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expected_tables import ExpectedTables, read_paragraphs

from .cluster import ROOT, Driver

MODELS = (f"model.path={ROOT}/models/demo", f"segmentation.model={ROOT}/models/sentence_detector")
POOL = read_paragraphs(160, longest=700)


def options(directory: Path) -> list[str]:
    return ["source.format=parquet", f"source.path={directory}/source.parquet", f"output.path={directory}/out", *MODELS]


def table_of(rows: dict[str, str | None]) -> pa.Table:
    return pa.table({"id": list(rows), "text": pa.array(list(rows.values()), pa.string())})


def write(directory: Path, rows: dict[str, str | None]) -> None:
    pq.write_table(table_of(rows), directory / "source.parquet")


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> ExpectedTables:
    """Return the expected rows for all texts of POOL, from an undisturbed run in one process and one unit."""
    directory = tmp_path_factory.mktemp("truth")
    pool = {f"p{i}": text for i, text in enumerate(POOL)}
    write(directory, dict(pool))
    assert Driver.start("local[2]", options(directory), directory).wait() == 0
    return ExpectedTables(directory / "out", pool)
