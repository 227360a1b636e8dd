import numpy as np
import pytest

from entitymill.recognition.best_tags_and_confidence import Scaling
from entitymill_models.confidence_fit import (
    MIN_MENTIONS,
    ScoredMentions,
    build_reliability_table,
    compute_calibration_error,
    fit_scalings,
)


def draw(count: int, label: str, temperature: float, offset: float, seed: int = 0) -> ScoredMentions:
    """Draw mentions whose chance of being correct is their confidence, scaled by a known temperature and offset."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(0.05, 0.99, count)
    logits = np.log(confidences / (1 - confidences)) / temperature + offset
    return ScoredMentions([label] * count, confidences, rng.uniform(size=count) < 1 / (1 + np.exp(-logits)))


def join(*parts: ScoredMentions) -> ScoredMentions:
    labels = [label for part in parts for label in part.labels]
    confidences = np.concatenate([part.confidences for part in parts])
    return ScoredMentions(labels, confidences, np.concatenate([part.correct for part in parts]))


def test_the_scaling_that_made_the_data_is_found_for_each_label() -> None:
    fitted = fit_scalings(join(draw(20_000, "PER", 2, -0.5), draw(20_000, "ORG", 0.7, 1)))
    assert fitted["PER"].temperature == pytest.approx(2, rel=0.1) and fitted["PER"].offset == pytest.approx(-0.5, abs=0.1)
    assert fitted["ORG"].temperature == pytest.approx(0.7, rel=0.1) and fitted["ORG"].offset == pytest.approx(1, abs=0.1)


def test_scaled_confidences_are_shares_of_correct_mentions() -> None:
    seen, unseen = draw(20_000, "PER", 3, -1), draw(20_000, "PER", 3, -1, seed=1)
    assert compute_calibration_error(unseen) > 0.1
    assert compute_calibration_error(unseen.scale(fit_scalings(seen))) < 0.02


def test_a_rare_label_gets_the_scaling_of_all_mentions() -> None:
    many = draw(20_000, "PER", 2, -0.5)
    fitted = fit_scalings(join(many, draw(MIN_MENTIONS - 1, "MISC", 0.2, 3)))
    assert fitted["MISC"].temperature == pytest.approx(fitted["PER"].temperature, rel=0.05)


@pytest.mark.parametrize("correct", [True, False])
def test_mentions_that_are_all_right_or_all_wrong_are_refused(correct: bool) -> None:
    mentions = ScoredMentions(["PER"] * 100, np.full(100, 0.8), np.full(100, correct))
    with pytest.raises(ValueError, match="100 mentions"):
        fit_scalings(mentions)


def test_the_error_is_the_mean_distance_of_the_bins() -> None:
    mentions = ScoredMentions(["PER"] * 4, np.array([0.95, 0.95, 0.15, 0.15]), np.array([True, False, False, False]))
    assert [(row.low, row.mentions, row.correct) for row in build_reliability_table(mentions)] == [
        (0.1, 2, 0.0),
        (0.9, 2, 0.5),
    ]
    assert compute_calibration_error(mentions) == pytest.approx((2 * 0.15 + 2 * 0.45) / 4)


def test_no_scaling_changes_nothing() -> None:
    mentions = draw(10, "PER", 1, 0)
    assert (mentions.scale({}).confidences == mentions.confidences).all()
    assert mentions.scale({"LOC": Scaling(temperature=2, offset=0)}).confidences == pytest.approx(mentions.confidences)
