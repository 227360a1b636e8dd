"""Test when the temporary tables of a run are written and removed, and what happens if the removal fails."""

from __future__ import annotations

from contextlib import closing
from unittest.mock import MagicMock, call

import pytest

from entitymill.tables import temporary_tables
from entitymill.tables.temporary_tables import TemporaryTable


def test_a_table_that_cannot_be_removed_does_not_hide_why_the_run_failed() -> None:
    tables = MagicMock()

    def fail() -> None:
        with closing(TemporaryTable(tables, 7)) as table:
            table.write(MagicMock())
            tables.drop.side_effect = OSError("the storage is gone")
            raise RuntimeError("the model is broken")

    with pytest.raises(RuntimeError, match="the model is broken"):
        fail()
    assert tables.drop.call_args == call("units_7")


def test_a_table_is_removed_once_and_only_if_it_was_written() -> None:
    tables = MagicMock()
    table = TemporaryTable(tables, 7)
    table.close()
    tables.drop.assert_not_called()
    table.write(MagicMock())
    table.close()
    table.close()
    assert tables.drop.call_args_list == [call("units_7")] * 2  # before it is written, and at the end


def test_only_leftovers_of_older_epochs_are_removed() -> None:
    tables = MagicMock()
    leftovers = ["units_7", "units_7_results_3"]
    tables.list_temporary.return_value = ["units_10", *leftovers, "units_9_results_1", "units_", "units_7_copy"]
    temporary_tables.remove_leftovers(tables, 9)
    tables.list_temporary.assert_called_once_with("units_")
    assert tables.drop.call_args_list == [call(name) for name in leftovers]


def test_in_a_catalog_rows_are_written_to_a_table_that_is_there_and_have_a_number_of_their_own() -> None:
    """In a catalog, the table must exist before rows are written, and the write must set its own transaction number.

    Otherwise a failed write would leave files that belong to no table, and Delta would use a number from the session.
    """
    tables, documents = MagicMock(root=None), MagicMock()
    tables.sql_name.return_value = "`s`.`entitymill_units_7_results_2`"
    table = TemporaryTable(tables, 7, results_of=2)
    table.prepare(documents)
    documents.limit.assert_called_once_with(0)
    tables.append.assert_not_called()
    table.fill(documents)
    number = {"txnAppId": "units_7_results_2", "txnVersion": "1"}
    tables.append.assert_called_once_with(documents, "units_7_results_2", number)
    table.close()
    assert tables.drop.call_args_list == [call("units_7_results_2")] * 2
