from __future__ import annotations

import pytest
from pyspark.sql import types as T

from entitymill.errors import SourceError
from entitymill.source import source_columns


def fields(kind: T.DataType, name: str = "c", metadata: dict[str, object] | None = None) -> list[T.StructField]:
    return [T.StructField(name, kind, True, metadata)]


def test_of_what_a_table_notes_of_its_columns_comments_are_kept_alone() -> None:
    inside = T.StructField("x", T.StringType(), False, {"comment": "inside", "CURRENT_DEFAULT": "1"})
    kind = T.MapType(T.StringType(), T.ArrayType(T.StructType([inside]), False))

    [found] = source_columns.check_passthrough(fields(kind, metadata={"delta.generationExpression": "1"}), "texts")

    plain = T.StructField("x", T.StringType(), False, {"comment": "inside"})
    assert found == T.StructField("c", T.MapType(T.StringType(), T.ArrayType(T.StructType([plain]), False)))
    assert found.metadata == {}
    assert found.dataType.valueType.elementType["x"].metadata == plain.metadata  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "kind",
    [
        T.NullType(),
        T.DayTimeIntervalType(),
        T.YearMonthIntervalType(),
        T.ArrayType(T.NullType()),
        T.MapType(T.StringType(), T.DayTimeIntervalType()),
        T.StructType([T.StructField("a", T.StructType([]))]),
        T.StructType([T.StructField("a", T.LongType()), T.StructField("A", T.LongType())]),
    ],
    ids=str,
)
def test_what_no_table_can_hold_is_refused_by_name(kind: T.DataType) -> None:
    with pytest.raises(SourceError, match=r"^source\.passthrough: c of texts is .* cast it in a view"):
        source_columns.check_passthrough(fields(kind), "texts")


@pytest.mark.parametrize("name", ["label", "LABEL", "_put", "a b", "a=b"])
def test_a_name_that_entities_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match=rf"^source\.passthrough: {name} "):
        source_columns.check_passthrough(fields(T.StringType(), name), "texts")
    source_columns.check_passthrough(fields(T.StringType(), "s"), "texts")
