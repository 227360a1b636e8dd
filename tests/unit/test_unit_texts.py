"""The hidden table of a run's texts: when it is removed, and what happens where that fails."""

from __future__ import annotations

from contextlib import closing
from unittest.mock import MagicMock, call

import pytest

from entitymill.tables import unit_texts
from entitymill.tables.unit_texts import UnitTable


def test_a_table_that_cannot_be_removed_does_not_hide_why_the_run_failed() -> None:
    tables = MagicMock()

    def fail() -> None:
        with closing(UnitTable(tables, 7)) as table:
            table.write(MagicMock())
            tables.drop.side_effect = OSError("the storage is gone")
            raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="the model is broken"):
        fail()
    assert tables.drop.call_args == call("units_7")


def test_a_table_is_removed_once_and_only_if_it_was_written() -> None:
    tables = MagicMock()
    table = UnitTable(tables, 7)
    table.close()
    tables.drop.assert_not_called()
    table.write(MagicMock())
    table.close()
    table.close()
    assert tables.drop.call_args_list == [call("units_7")] * 2  # before it is written, and at the end


def test_only_leftovers_of_older_epochs_are_removed() -> None:
    tables = MagicMock()
    leftovers = ["units_7", "units_7_results_3"]
    tables.hidden_tables.return_value = ["units_10", *leftovers, "units_9_results_1", "units_", "units_7_copy"]
    unit_texts.remove_leftovers(tables, 9)
    tables.hidden_tables.assert_called_once_with("units_")
    assert tables.drop.call_args_list == [call(name) for name in leftovers]
