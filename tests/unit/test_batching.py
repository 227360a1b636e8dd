import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.tagger.batching import LENGTH_STEP, MAX_BATCH_PIECES, OVERHEAD_PIECES, SIZES, Batch, plan

LIMIT = 512
lengths = st.lists(st.integers(3, LIMIT), max_size=200)


def cost(batches: list[Batch]) -> int:
    return sum(len(batch.rows) * batch.length + OVERHEAD_PIECES for batch in batches)


@given(lengths)
def test_every_row_is_in_one_batch_that_holds_it(rows: list[int]) -> None:
    batches = plan(np.array(rows, np.int64), LIMIT)

    assert sorted(int(row) for batch in batches for row in batch.rows) == list(range(len(rows)))
    assert all(rows[row] <= batch.length <= LIMIT for batch in batches for row in batch.rows)


@given(lengths)
def test_shapes_are_few_and_batches_fit_the_cache(rows: list[int]) -> None:
    for batch in plan(np.array(rows, np.int64), LIMIT):
        assert batch.length % LENGTH_STEP == 0
        assert len(batch.rows) in SIZES
        assert len(batch.rows) == 1 or len(batch.rows) * batch.length <= MAX_BATCH_PIECES


@given(lengths)
def test_the_plan_costs_no_more_than_one_row_at_a_time(rows: list[int]) -> None:
    alone = [Batch(np.array([i]), min(-(-length // LENGTH_STEP) * LENGTH_STEP, LIMIT)) for i, length in enumerate(rows)]

    assert cost(plan(np.array(rows, np.int64), LIMIT)) <= cost(alone)


@given(st.lists(st.integers(3, 24), min_size=1, max_size=7))
def test_the_plan_is_the_cheapest_of_all_cuts_of_the_sorted_rows(rows: list[int]) -> None:
    ordered = sorted(-(-length // LENGTH_STEP) * LENGTH_STEP for length in rows)

    def cheapest(start: int) -> int:
        if start == len(ordered):
            return 0
        return min(
            size * ordered[start + size - 1] + OVERHEAD_PIECES + cheapest(start + size)
            for size in SIZES
            if start + size <= len(ordered)
        )

    assert cost(plan(np.array(rows, np.int64), LIMIT)) == cheapest(0)


def test_rows_of_one_length_share_batches() -> None:
    batches = plan(np.full(64, 12, np.int64), LIMIT)
    assert len(batches) == 1
