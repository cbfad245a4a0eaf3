"""Few bits without back-propagation: the step is found by forward passes of the rounded factors."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from training_cases import clusters, tensor_train_network  # noqa: E402

from edgecompress.core.training import PrecisionOptions, TrainOptions  # noqa: E402
from edgecompress.training.loop import train_network  # noqa: E402
from edgecompress.training.low_precision.apply import bake_precision  # noqa: E402
from edgecompress.training.progress import RunOptions  # noqa: E402
from edgecompress.training.tensorize import factorizations  # noqa: E402

GUESSED = 0.25
"""There are four classes of as many samples each."""


@pytest.mark.parametrize("wide_share", [0.0, 0.5])
def test_factors_of_four_bits_learn_without_a_backward_pass(wide_share: float) -> None:
    options = TrainOptions(
        optimizer="zeroth-order",
        precision=PrecisionOptions(factor_bits=4, wide_share=wide_share),
        adaptation=None,
        epochs=4,
        batch=60,
    )
    network = tensor_train_network()
    result = train_network(network, clusters(), options, run=RunOptions(device="cpu"))
    losses = [fact.loss for fact in result.history]
    assert losses[-1] < 0.7 * losses[0]
    score = result.history[-1].score
    assert score is not None
    assert score > 2 * GUESSED
    assert bake_precision(result.network) > 0
    cores = [core for _, part in factorizations(result.network) for core in part.cores]
    assert max(core.numel() for core in cores) > 16
    for core in cores:
        # Odd multiples of half a step, a power of two: 4 bits have 16 of them.
        halves = (core.detach() * 2.0**power for power in range(-8, 24))
        assert any(bool((h.abs() <= 15).all() and (h.remainder(2) == 1).all()) for h in halves)
