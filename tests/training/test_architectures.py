"""Architectures: sizes that papers state, gradients everywhere, and files that run elsewhere."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgecompress.core.errors import ConfigurationInvalid, DataInvalid
from edgecompress.training.architectures import (
    SampleShape,
    architecture_names,
    load_architecture,
)
from edgecompress.training.architectures.transformer import Attention
from edgecompress.training.export import export_module


def _sample(*shape: int, dtype: str = "float32", **facts: int) -> SampleShape:
    return SampleShape(inputs=(shape,), dtypes=(dtype,), **facts)


GREY = _sample(1, 28, 28, classes=10)
COLOUR = _sample(3, 32, 32, classes=10)
SPEECH = _sample(49, 10, classes=12)
TEXT = _sample(16, dtype="int64", vocabulary=40)
CASES = [
    ("mlp", GREY),
    ("lenet", GREY),
    ("resnet20", COLOUR),
    ("ds-cnn", SPEECH),
    ("transformer", SPEECH),
    ("transformer", TEXT),
]


QUICK = [("resnet20", COLOUR), ("transformer", TEXT)]
"""Between them they have every kind of layer."""


def _build(name: str, sample: SampleShape, seed: int = 0, **choices: object) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return load_architecture(name).build(sample, generator, **choices)


def _input(sample: SampleShape, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if sample.vocabulary:
        return torch.randint(sample.vocabulary, (count, *sample.inputs[0]), generator=generator)
    return torch.randn(count, *sample.inputs[0], generator=generator)


@pytest.mark.parametrize(
    ("name", "sample", "count"),
    [
        ("mlp", GREY, 784 * 512 + 512 + 5130),  # by hand
        ("lenet", GREY, 431_080),  # 520 + 25,050 + 400,500 + 5,010, the usual figure
        ("resnet20", COLOUR, 269_722),  # 267,696 + 1,376 + 650; "0.27M" in He et al. 2016
        # The benchmark's 24,908 without moving statistics (1,152) and 576 redundant biases.
        ("ds-cnn", SPEECH, 24_908 - 1_152 - 576),
    ],
)
def test_parameters_are_those_of_the_paper(name: str, sample: SampleShape, count: int) -> None:
    assert sum(p.numel() for p in _build(name, sample).parameters()) == count


def test_resnet20_has_the_multiply_accumulates_of_the_paper() -> None:
    """By hand: 442,368 + 14,155,776 + 2 * 12,976,128 in convolutions, 640 in the last layer."""
    macs = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        places = output[0, 0].numel() if output.ndim == 4 else 1
        macs += weight.numel() * places

    network = _build("resnet20", COLOUR).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(_input(COLOUR, 1))
    assert macs == 40_550_400 + 640


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_every_parameter_gets_a_gradient(name: str, sample: SampleShape) -> None:
    network = _build(name, sample)
    network(_input(sample, 8)).square().mean().backward()
    for place, parameter in network.named_parameters():
        assert parameter.grad is not None, place
        # A bias of keys shifts all logits of a query alike: its gradient is zero by definition.
        assert place.endswith("key.bias") or parameter.grad.abs().max() > 0, place


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_the_generator_decides_the_weights(name: str, sample: SampleShape) -> None:
    one, same, other = (_build(name, sample, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert any(
        not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_logits_start_at_the_size_of_inputs(name: str, sample: SampleShape) -> None:
    """A network whose outputs start at 100 or 0.01 learns late: He et al. 2015, section 2.2."""
    with torch.no_grad():
        spread = float(_build(name, sample)(_input(sample, 64)).std())
    assert 0.1 < spread < 4.0


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id=f"{case[0]}-{k}")
        for k, case in enumerate(CASES)
    ],
)
def test_exported_file_runs_in_onnxruntime_with_any_batch(name: str, sample: SampleShape) -> None:
    network = _build(name, sample).eval()
    x = _input(sample, 3)
    data = export_module(network, (1, *sample.inputs[0]), where="network", dtype=x.dtype)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, network(x).numpy(), rtol=1e-3, atol=1e-4)


def test_a_decoder_does_not_see_later_tokens() -> None:
    network = _build("transformer", TEXT).eval()
    tokens = _input(TEXT, 2)
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 40
    with torch.no_grad():
        before, after = network(tokens), network(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=1e-6)
    assert (before[:, 9:] - after[:, 9:]).abs().max() > 1e-2


def test_grey_pictures_may_come_without_or_with_a_last_channel_axis() -> None:
    x = torch.randn(2, 49, 10)
    shapes = [(49, 10), (49, 10, 1), (1, 49, 10)]
    outputs = [
        _build("ds-cnn", _sample(*shape, classes=12)).eval()(x.reshape(2, *shape))
        for shape in shapes
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    ("name", "sample", "words"),
    [
        ("mlp", TEXT, "mlp takes one input of floating numbers"),
        ("lenet", _sample(1, 8, 8, classes=10), "at least 16x16; these samples are [1, 8, 8]"),
        ("resnet20", _sample(64, classes=10), "takes one picture"),
        ("ds-cnn", _sample(49, 1, classes=12), "time by frequency"),
        ("transformer", COLOUR, "takes tokens (length,) with a vocabulary"),
        ("transformer", _sample(49, 10), "needs the number of classes"),
        ("lenet", _sample(1, 28, 28), "needs the number of classes"),
    ],
)
def test_samples_that_do_not_fit_are_refused(name: str, sample: SampleShape, words: str) -> None:
    with pytest.raises(DataInvalid) as error:
        _build(name, sample)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "sample", "choices"),
    [
        ("mlp", GREY, {"hidden": (0,)}),
        ("lenet", GREY, {"widths": (20, 50)}),
        ("resnet20", COLOUR, {"width": 0}),
        ("ds-cnn", SPEECH, {"dropout": (0.2, 1.0)}),
        ("transformer", TEXT, {"width": 30, "heads": 4}),
    ],
)
def test_choices_out_of_range_are_refused(
    name: str, sample: SampleShape, choices: dict[str, object]
) -> None:
    with pytest.raises(ConfigurationInvalid, match=name):
        _build(name, sample, **choices)


def test_every_file_is_an_architecture_of_its_name() -> None:
    names = architecture_names()
    assert {"mlp", "lenet", "resnet20", "ds-cnn", "transformer"} <= set(names)
    for name in names:
        assert load_architecture(name).name == name
    with pytest.raises(ConfigurationInvalid, match=r"unknown architecture 'vgg'.*mlp"):
        load_architecture("vgg")


def test_a_decoder_in_onnxruntime_hides_later_tokens_without_a_table_of_places() -> None:
    length = 200
    sample = _sample(length, dtype="int64", vocabulary=40)
    network = _build("transformer", sample, width=16, heads=2).eval()
    tokens = _input(sample, 2)
    data = export_module(network, (1, length), where="network", dtype=tokens.dtype)
    held = [math.prod(item.dims) for item in onnx.load_from_string(data).graph.initializer]
    # The largest weights are the places, 200 * 16; a mask of both blocks would be 2 * 200 * 200.
    assert max(held) == length * 16
    assert not list(network.buffers())
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    changed = tokens.clone()
    changed[:, 90:] = (changed[:, 90:] + 1) % 40
    before, after = (session.run(None, {"input": x.numpy()})[0] for x in (tokens, changed))
    assert np.array_equal(before[:, :90], after[:, :90])
    assert np.abs(before[:, 90:] - after[:, 90:]).max() > 1e-2
    with torch.no_grad():
        np.testing.assert_allclose(before, network(tokens).numpy(), rtol=1e-4, atol=1e-5)


def test_attention_to_earlier_places_is_that_of_torch() -> None:
    attention = Attention(8, 2, causal=True)
    x = torch.randn(3, 7, 8, generator=torch.Generator().manual_seed(0))
    parts = (attention.query, attention.key, attention.value)
    query, key, value = (part(x).reshape(3, 7, 2, 4).transpose(1, 2) for part in parts)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    wanted = attention.output(mixed.transpose(1, 2).reshape(3, 7, 8))
    torch.testing.assert_close(attention(x), wanted, rtol=1e-5, atol=1e-6)
