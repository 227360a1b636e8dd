from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from entitymill.spark import spark_connect


@pytest.mark.parametrize(
    ("master", "kept"),
    [
        ("local", True),
        ("local[2]", True),
        ("local[*, 4]", True),
        ("local-cluster[2,1,1024]", False),
        ("yarn", False),
        ("k8s://host", False),
        (None, False),
    ],
)
def test_cached_rows_last_where_no_executor_can_be_lost_alone(master: str | None, kept: bool) -> None:
    session: Any = SimpleNamespace(conf={"spark.master": master})
    assert spark_connect.keeps_caches(session) == kept


def test_a_pattern_may_be_a_choice_as_for_hadoop(tmp_path: Path) -> None:
    for name in ("part-0.parquet", "part-1.csv", "_SUCCESS"):
        (tmp_path / name).touch()
    session: Any = None
    assert spark_connect.list_names(session, f"{tmp_path}/{{_SUCCESS,_metadata,part-*.parquet}}") == [
        "_SUCCESS",
        "part-0.parquet",
    ]
    assert spark_connect.list_names(session, f"{tmp_path}/part-*") == ["part-0.parquet", "part-1.csv"]
