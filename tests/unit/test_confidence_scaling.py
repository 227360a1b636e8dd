import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from entitymill.recognition.best_tags_and_confidence import Scaling, compute_logits, scale_confidences

LABELS = ("LOC", "PER")
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(probabilities, st.floats(0.1, 10), st.floats(-5, 5))
def test_scaling_keeps_the_order_of_a_labels_mentions(values: list[float], temperature: float, offset: float) -> None:
    confidences = np.array(sorted(values))
    scalings = {"PER": Scaling(temperature=temperature, offset=offset)}
    scaled = scale_confidences(confidences, np.ones(len(values), np.int64), LABELS, scalings)
    assert (np.diff(scaled) >= 0).all() and (scaled >= 0).all() and (scaled <= 1).all()


def test_a_scaling_is_the_formula_that_its_class_gives() -> None:
    scalings = {"PER": Scaling(temperature=2, offset=-0.5)}
    scaled = scale_confidences(np.array([0.9, 0.9]), np.array([0, 1]), LABELS, scalings)
    assert scaled[0] == 0.9  # LOC has no scaling
    np.testing.assert_allclose(np.log(scaled[1] / (1 - scaled[1])), np.log(0.9 / 0.1) / 2 - 0.5)


def test_confidences_of_0_and_1_stay_finite() -> None:
    assert np.isfinite(compute_logits(np.array([0.0, 1.0]))).all()
