from __future__ import annotations

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
