import pytest

from entitymill_reports import page_queries


@pytest.mark.parametrize(
    ("metrics", "rows"),
    [
        ({"numOutputRows": "4", "numOutputBytes": "5417", "numFiles": "1"}, 4),
        # Metrics of Delta 3.3 for an overwrite that copies some rows, and for a MERGE.
        ({"numOutputRows": "6", "numCopiedRows": "3", "numDeletedRows": "1", "numRemovedBytes": "0"}, 3),
        ({"numOutputRows": "9", "numTargetRowsInserted": "2", "numTargetRowsUpdated": "1", "numTargetRowsCopied": "6"}, 3),
        ({}, 0),
    ],
)
def test_rows_that_were_only_copied_do_not_count(metrics: dict[str, str], rows: int) -> None:
    assert page_queries._count_written_rows(metrics) == rows
