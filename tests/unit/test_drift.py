import math

import pytest

from entitymill.errors import DriftError
from entitymill.settings.report_sections import ReportSettings
from entitymill_reports import drift
from entitymill_reports.page_data import Run
from sample_figures import run

BOUNDS = ReportSettings()


def changes(**of_the_last: object) -> dict[tuple[str, str | None], tuple[float, float, bool]]:
    found = drift.compare_runs(run(2, **of_the_last), [run(1), run(0)], BOUNDS)
    return {(change.measure, change.label): (change.before, change.now, change.flagged) for change in found.changes}


def test_the_same_is_no_change() -> None:
    assert changes() == {
        ("share", "LOC"): (0.4, 0.4, False),
        ("share", "PER"): (0.6, 0.6, False),
        ("rate", None): (500, 500, False),
        ("confidence", None): (0.9, 0.9, False),
    }


@pytest.mark.parametrize(
    ("of_the_last", "marked"),
    [
        ({"entities_by_label": {"PER": 650, "LOC": 350}}, set()),  # just at the bound of 0.05
        ({"entities_by_label": {"PER": 660, "LOC": 340}}, {("share", "PER"), ("share", "LOC")}),
        ({"entities_by_label": {"PER": 600, "LOC": 400, "NEW": 60}}, {("share", "NEW")}),
        ({"entities_by_label": {"PER": 750, "LOC": 500}}, set()),  # a quarter more
        ({"entities_by_label": {"PER": 756, "LOC": 504}}, {("rate", None)}),
        ({"entities_by_label": {}}, {("rate", None), ("share", "PER"), ("share", "LOC")}),
        ({"confidence": 0.84}, {("confidence", None)}),
        ({"confidence": None}, set()),
    ],
)
def test_what_is_beyond_its_bound_is_marked(of_the_last: dict[str, object], marked: set[tuple[str, str | None]]) -> None:
    assert {key for key, (*_, beyond) in changes(**of_the_last).items() if beyond} == marked


def test_runs_before_count_by_what_they_did() -> None:
    before = [run(1, sentences=6000, entities_by_label={"PER": 3000}, current_mentions=3000, confidence=0.8), run(0)]
    found = {
        change.measure: change.before
        for change in drift.compare_runs(run(2), before, BOUNDS).changes
        if change.label != "LOC"
    }
    assert found == {"share": 3600 / 4000, "rate": 500, "confidence": pytest.approx((0.8 * 3 + 0.9) / 4)}


def test_the_first_mention_ever_is_a_change() -> None:
    [rate] = [
        c
        for c in drift.compare_runs(run(1), [run(0, entities_by_label={}, current_mentions=0)], BOUNDS).changes
        if c.measure == "rate"
    ]
    assert (rate.change, rate.flagged) == (math.inf, True)


@pytest.mark.parametrize(
    ("last", "before", "why"),
    [
        (None, [], "No run has completed"),
        (run(2, sentences=999), [run(1)], r"The run tagged 999 sentences"),
        (run(2), [run(1, sentences=999), run(0, status="failed")], r"Earlier runs tagged 999 sentences"),
        (run(2), [run(1, sentences=0)], "No earlier run tagged any sentence"),
    ],
)
def test_too_little_is_not_compared(last: Run | None, before: list[Run], why: str) -> None:
    found = drift.compare_runs(last, before, BOUNDS)
    assert found.changes == ()
    assert why in found.why_not_compared
    drift.check_drift(found, BOUNDS.model_copy(update={"fail_on_drift": True}))


def test_only_the_latest_runs_before_count() -> None:
    before = [run(number) for number in range(40, 0, -1)]
    assert drift.compare_runs(run(41), before, BOUNDS).runs == drift.MAX_EARLIER_RUNS


def test_other_models_are_told() -> None:
    assert not drift.compare_runs(run(1), [run(0)], BOUNDS).other_model
    assert drift.compare_runs(run(1), [run(0, fingerprint="other")], BOUNDS).other_model


def test_drift_has_its_exit_code_where_that_is_asked_for() -> None:
    found = drift.compare_runs(run(2, entities_by_label={"PER": 950, "LOC": 50}), [run(1), run(0)], BOUNDS)
    with pytest.raises(DriftError, match=r"share of LOC 0\.050 instead of 0\.400, share of PER") as raised:
        drift.check_drift(found, BOUNDS.model_copy(update={"fail_on_drift": True}))
    assert raised.value.exit_code == 6
    drift.check_drift(found, BOUNDS)
