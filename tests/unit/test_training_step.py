"""A training step: counts against hand arithmetic and against torch's own count of operations."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

from edgecompress.core.errors import Unsupported
from edgecompress.core.training_step import TrainingStepOptions
from edgecompress.core.work import ConvWork, MatMulWork, TensorUse, Work
from edgecompress.graph.model import Model, load_model
from edgecompress.hardware.target import load_target
from edgecompress.hardware.training_step import training_memory, training_works
from edgecompress.pipeline.training_step import estimate_training_step
from edgecompress.report.forms import TrainingSteps, document_of, render

SGD = TrainingStepOptions()
ADAM = TrainingStepOptions(optimizer="adam", gradient_bits=32)

MLP = """
<ir_version: 10, opset_import: ["" : 21]>
mlp (float[64,784] x) => (float[64,10] y)
<float[784,512] w1, float[512,10] w2>
{
    h = MatMul (x, w1)
    r = Relu (h)
    y = MatMul (r, w2)
}
"""


def with_weights(text: str, shapes: dict[str, tuple[int, ...]], path: Path) -> Model:
    model = onnx.parser.parse_model(text)
    del model.graph.initializer[:]
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return load_model(path, normalize=False)


@pytest.fixture
def mlp(tmp_path: Path) -> Model:
    return with_weights(MLP, {"w1": (784, 512), "w2": (512, 10)}, tmp_path / "mlp.onnx")


def macs_by_phase(works: list[Work], options: TrainingStepOptions = SGD) -> dict[str, int]:
    found: dict[str, int] = {}
    for step in training_works(works, options):
        found[step.phase] = found.get(step.phase, 0) + step.macs
    return found


def test_multiply_accumulates_of_a_dense_network(mlp: Model) -> None:
    report = estimate_training_step(mlp, load_target("systolic-ws-32"), SGD)
    macs = {phase.phase: phase.macs for phase in report.phases}
    both = 64 * (784 * 512 + 512 * 10)
    assert macs == {
        "forward": both,
        "backward": 64 * 512 * 10,  # nothing before the first layer needs a gradient
        "weight gradient": both,
        "update": 0,
    }
    assert report.parameters == 784 * 512 + 512 * 10
    assert report.latency_s == pytest.approx(sum(phase.latency_s for phase in report.phases))
    assert all(phase.cycles > 0 for phase in report.phases)


def test_memory_of_a_dense_network(mlp: Model) -> None:
    report = estimate_training_step(mlp, load_target("systolic-ws-32"), ADAM)
    weights = 784 * 512 + 512 * 10
    assert report.memory.parameter_bytes == 4 * weights
    assert report.memory.gradient_bytes == 4 * weights
    assert report.memory.optimizer_bytes == 8 * weights
    kept = 64 * (784 + 512 + 512)  # x, h for the Relu, r
    assert report.memory.activation_bytes == 4 * kept
    assert report.memory.gradient_flow_bytes == 4 * 64 * (784 + 512)


def test_master_weights_are_counted(mlp: Model) -> None:
    masters = TrainingStepOptions(master_bits=32, gradient_bits=8)
    report = estimate_training_step(mlp, load_target("systolic-ws-32"), masters)
    weights = 784 * 512 + 512 * 10
    assert report.memory.parameter_bytes == 8 * weights
    assert report.memory.gradient_bytes == weights


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_state_slows_the_update_only(mlp: Model, optimizer: str) -> None:
    target = load_target("systolic-ws-32")
    plain = estimate_training_step(mlp, target, SGD)
    options = TrainingStepOptions(optimizer=optimizer)  # type: ignore[arg-type]
    found = estimate_training_step(mlp, target, options)
    assert found.phases[:3] == plain.phases[:3]
    assert (found.phases[3].latency_s > plain.phases[3].latency_s) == (optimizer != "sgd")


def conv_work(group: int, stride: int, kernel: int, transposed: bool) -> ConvWork:
    pad = kernel // 2
    size = 12
    out = (size - 1) * stride + kernel - 2 * pad if transposed else (size - 1) // stride + 1
    return ConvWork(
        batch=3,
        in_channels=8,
        out_channels=16,
        in_height=size,
        in_width=size,
        out_height=out,
        out_width=out,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        dilation=(1, 1),
        pads=(pad, pad, pad, pad),
        group=group,
        transposed=transposed,
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_count_as_torch_counts_them(stride: int, transposed: bool) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    conv = conv_work(1, stride, 3, transposed)
    first = Work(name="", op_type="Conv", operator=conv, input_bits=0, output_bits=0)
    ours = macs_by_phase([first])
    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    layer = kind(8, 16, 3, stride=stride, padding=1, bias=False)
    x = torch.randn(3, 8, 12, 12, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = layer(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert 2 * ours["forward"] == forward.get_total_flops()
    assert 2 * (ours["backward"] + ours["weight gradient"]) == backward.get_total_flops()


@pytest.mark.parametrize("transposed", [False, True])
def test_groups_divide_every_gradient(transposed: bool) -> None:
    dense = Work(
        name="", op_type="", operator=conv_work(1, 1, 3, transposed), input_bits=0, output_bits=0
    )
    grouped = Work(
        name="", op_type="", operator=conv_work(4, 1, 3, transposed), input_bits=0, output_bits=0
    )
    assert macs_by_phase([dense]) == {k: 4 * v for k, v in macs_by_phase([grouped]).items()}


def test_a_product_of_two_activations_needs_both_gradients() -> None:
    product = MatMulWork(count=4, rows=10, inner=16, columns=20, constant=False)
    work = Work(name="", op_type="MatMul", operator=product, input_bits=0, output_bits=0)
    found = macs_by_phase([work])
    assert found == {"forward": product.macs, "backward": 2 * product.macs}


def test_steps_of_a_recurrent_cell_share_one_weight_gradient() -> None:
    product = MatMulWork(count=6, rows=2, inner=8, columns=32, constant=True, repeats=6)
    work = Work(name="", op_type="LSTM", operator=product, input_bits=0, output_bits=0)
    steps = [s for s in training_works([work], SGD) if s.phase == "weight gradient"]
    gradient = steps[0].work.operator
    assert isinstance(gradient, MatMulWork)
    assert (gradient.count, gradient.rows, gradient.inner, gradient.columns) == (1, 8, 12, 32)
    assert training_memory([work], SGD).gradient_bytes == 8 * 32 * 2


def test_an_activation_read_twice_is_kept_once() -> None:
    product = MatMulWork(count=1, rows=4, inner=8, columns=8, constant=True)
    use = (TensorUse(name="x", bits=4 * 8 * 32),)
    works = [
        Work(name=n, op_type="MatMul", operator=product, input_bits=0, output_bits=0, reads=use)
        for n in "ab"
    ]
    assert training_memory(works, SGD).activation_bytes == 4 * 8 * 4


def test_a_factor_chain_has_one_gradient_for_each_factor(tmp_path: Path) -> None:
    text = MLP.replace("float[784,512] w1", "float[784,8] a, float[8,512] b").replace(
        "h = MatMul (x, w1)", "t = MatMul (x, a)\n    h = MatMul (t, b)"
    )
    shapes = {"a": (784, 8), "b": (8, 512), "w2": (512, 10)}
    model = with_weights(text, shapes, tmp_path / "factors.onnx")
    report = estimate_training_step(model, load_target("systolic-ws-32"), SGD)
    macs = {phase.phase: phase.macs for phase in report.phases}
    assert macs["weight gradient"] == 64 * (784 * 8 + 8 * 512 + 512 * 10)
    assert macs["backward"] == 64 * (8 * 512 + 512 * 10)
    assert report.parameters == 784 * 8 + 8 * 512 + 512 * 10


def test_wide_gradients_run_as_passes_of_a_narrow_array(mlp: Model) -> None:
    target = load_target("systolic-ws-32")
    found = {
        bits: estimate_training_step(
            mlp, target, TrainingStepOptions(gradient_bits=bits, optimizer="adam")
        )
        for bits in (8, 16, 32)
    }
    for place, phase in enumerate(found[8].phases):
        narrow, wide, widest = (report.phases[place] for report in found.values())
        assert narrow.macs == wide.macs == widest.macs
        if phase.phase in ("backward", "weight gradient"):
            assert wide.cycles > 1.5 * narrow.cycles
            assert widest.cycles > 1.5 * wide.cycles
        if phase.phase == "update":
            # weights of 32 bits, two moments of 32 and the gradient in; all but that out
            weights = 784 * 512 + 512 * 10
            assert narrow.moved_bytes == weights * (4 + 8 + 1 + 4 + 8)
            assert widest.moved_bytes == weights * (4 + 8 + 4 + 4 + 8)
    assert any("passes of 8 bits" in note for note in found[16].notes)
    assert not any("passes" in note for note in found[8].notes)
    assert any("priced at 8 bits" in note for note in found[8].notes)


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[2,3] x) => (float[2,3] y) '
    model = with_weights(text + "{ y = Relu (x) }", {}, tmp_path / "relu.onnx")
    with pytest.raises(Unsupported, match="to train"):
        estimate_training_step(model, load_target("systolic-ws-32"), SGD)


@pytest.mark.parametrize("wrong", [{"gradient_bits": 1}, {"master_bits": 1}, {"state_bits": 128}])
def test_widths_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="bits"):
        TrainingStepOptions(**wrong)  # type: ignore[arg-type]


def test_forms(mlp: Model) -> None:
    from importlib import resources

    steps = TrainingSteps((estimate_training_step(mlp, load_target("systolic-ws-32"), ADAM),))
    text = render(steps, "text")
    assert "weight gradient" in text
    assert "optimiser" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "<table" in render(steps, "html")
    folder = resources.files("edgecompress.report") / "schemas"
    import json

    schema = json.loads((folder / "training-step-report.json").read_text())
    jsonschema.validate(document_of(steps), schema)
