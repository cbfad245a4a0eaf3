"""Weight streams by encoding, each against arithmetic by hand."""

from __future__ import annotations

import dataclasses

import pytest

from edgecompress.core.work import ElementWork, MatMulWork, WeightStatistics, Work
from edgecompress.hardware.target import Target, WeightStream, load_target
from edgecompress.hardware.weight_stream import UNMEASURED, weight_traffic

TERNARY = WeightStatistics(
    count=4096, levels=3, entropy_bits=1.2, zero_share=0.7, zero_run_bits=1.9
)


def with_stream(**stream: object) -> Target:
    target = load_target("systolic-ws-32")
    return dataclasses.replace(target, weight_stream=WeightStream.model_validate(stream))


def work(
    weights: WeightStatistics | None = TERNARY, *, constant: bool = True, repeats: int = 1
) -> Work:
    product = MatMulWork(
        count=repeats,
        rows=3,
        inner=64,
        columns=64,
        constant=constant,
        repeats=repeats,
        weight_bits=2,
        activation_bits=8,
        weight_storage_bits=6554,
    )
    return Work(name="", op_type="", operator=product, input_bits=0, output_bits=0, weights=weights)


@pytest.mark.parametrize(
    ("stream", "bits"),
    [
        ({"encoding": "fixed", "weight_bits": 7}, 4096 * 7),
        ({"encoding": "packed", "weight_bits": 8}, 6554),
        ({"encoding": "entropy", "weight_bits": 8}, 4096 * 1.2),
        ({"encoding": "entropy", "weight_bits": 8, "overhead_bits": 0.3}, 4096 * 1.5),
        ({"encoding": "dictionary", "weight_bits": 8}, 4096 * 2),
        ({"encoding": "dictionary", "weight_bits": 8, "overhead_bits": 0.5}, 4096 * 2.5),
        ({"encoding": "zero_run", "weight_bits": 8}, 4096 * 1.9),
    ],
)
def test_bits_by_encoding(stream: dict[str, object], bits: float) -> None:
    found = weight_traffic(work(), with_stream(**stream))
    assert found.byte_count == pytest.approx(bits / 8)
    assert found.decode_cycles == 0
    assert found.elements == 4096
    assert found.assumed == ""


@pytest.mark.parametrize("encoding", ["entropy", "dictionary", "zero_run"])
def test_no_code_takes_more_than_the_weights(encoding: str) -> None:
    wide = WeightStatistics(count=4096, levels=256, entropy_bits=8, zero_share=0, zero_run_bits=12)
    stream = {"encoding": encoding, "weight_bits": 8, "overhead_bits": 1.0}
    assert weight_traffic(work(wide), with_stream(**stream)).byte_count == 4096


@pytest.mark.parametrize("encoding", ["entropy", "dictionary", "zero_run"])
def test_values_that_are_not_at_hand_are_said(encoding: str) -> None:
    found = weight_traffic(work(None), with_stream(encoding=encoding, weight_bits=8))
    assert found.byte_count == 4096 * 2 / 8
    assert found.assumed == UNMEASURED


def test_the_decoder_takes_its_time() -> None:
    stream = {"encoding": "entropy", "weight_bits": 8, "decoder_weights_per_cycle": 4.0}
    assert weight_traffic(work(), with_stream(**stream)).decode_cycles == 1024


def test_a_product_of_two_activations_has_their_width_and_no_code() -> None:
    stream = {"encoding": "entropy", "weight_bits": 4, "decoder_weights_per_cycle": 4.0}
    found = weight_traffic(work(None, constant=False), with_stream(**stream))
    assert (found.byte_count, found.decode_cycles, found.assumed) == (4096, 0, "")


def test_steps_that_share_a_weight_load_it_once() -> None:
    found = weight_traffic(work(repeats=5), with_stream(encoding="fixed", weight_bits=8))
    assert found.byte_count == 4096


def test_element_wise_work_has_no_weights() -> None:
    element = ElementWork(operations=1, read_bits=8, written_bits=8)
    add = Work(name="", op_type="Add", operator=element, input_bits=8, output_bits=8)
    with pytest.raises(TypeError, match="element-wise"):
        weight_traffic(add, load_target("systolic-ws-32"))
