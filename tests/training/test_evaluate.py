"""Field accuracy by hand."""

import pytest

pytest.importorskip("torch", reason="needs the train extra")

from workloads.training.core.evaluate import field_accuracy

REFERENCE = "kind: train\ntrain: {max_steps: 200, learning_rate: 0.001}"


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [
        (REFERENCE, 1.0),
        ("kind: train\ntrain:\n  learning_rate: 0.001\n  max_steps: 200", 1.0),  # the same job in other words
        ("kind: train\ntrain: {max_steps: 300, learning_rate: 0.001}", 2 / 3),
        ("kind: train", 1 / 3),
        (REFERENCE + "\ndata: {packing: false}", 3 / 4),  # an invented field counts against it
        ("Sure! Here is your job.", 0.0),
        ("kind: [", 0.0),
        ("", 0.0),
    ],
)
def test_field_accuracy(answer: str, accuracy: float) -> None:
    assert field_accuracy(answer, REFERENCE) == pytest.approx(accuracy)


def test_a_reference_that_is_no_mapping_has_no_fields() -> None:
    assert field_accuracy("Paris", "Paris") is None
