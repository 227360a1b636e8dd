from __future__ import annotations

import pytest

from entitymill import settings
from entitymill.errors import SettingsError
from entitymill.source.source_columns import has_nondeterministic_part


@pytest.mark.parametrize(
    ("where", "moving"),
    [
        ("event_date = '2026-11-01' AND knows = 'andy'", False),
        ("day >= current_date() - 7", True),
        ("day >= DATE 'yesterday'", True),
        ("at < timestamp'Today'", True),
        ("rand(7) < 0.1", True),
        ("id IN (SELECT id FROM others)", True),
        ("_metadata.file_path LIKE '%2026%'", True),
        ("_METADATA.file_size > 10", True),
        ("owner = session_user()", True),
        ("id IN (TABLE others)", True),
        ("at >= '06:00'", True),
        ("at >= timestamp 'T6:30:15'", True),
        ("uniform(0, 1) = 0", True),
        ("at >= '2026-11-01 06:00' AND uniform = 'blue: 06:00'", False),
        ("(table = 'x') AND user = 'andy'", False),
        ("my_metadata.kind = 'x' AND input_file_names = 'y'", False),
    ],
)
def test_a_condition_that_may_hold_for_other_rows_later(where: str, moving: bool) -> None:
    assert has_nondeterministic_part(where) == moving


@pytest.mark.parametrize(
    "asked",
    [
        "input_file_name() LIKE '%a%'",
        "kind = 'a' AND Input_File_Name ( ) <> ''",
        "input_file_block_start() = 0",
        "input_file_block_length() > 1",
        "spark_partition_id() = 0",
        "`spark_partition_id`() = 0",
        "monotonically_increasing_id() % 2 = 0",
        "kind = 'it\\'s' AND monotonically_increasing_id() > 0",
    ],
)
def test_a_condition_on_how_rows_are_read_is_refused(asked: str) -> None:
    with pytest.raises(SettingsError, match=r"^source\.where: \w+\(\) depends on how Spark reads a row") as refused:
        settings.load(None, ["source.path=x", "output.path=y", f"source.where={asked}"], {})
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "asked", ["kind = 'input_file_name()'", 'kind = "spark_partition_id()"', "input_file_name = 'a'", "id IN (1, 2)"]
)
def test_a_condition_on_what_is_in_rows_is_taken(asked: str) -> None:
    assert settings.load(None, ["source.path=x", "output.path=y", f"source.where={asked}"], {}).source.where == asked
