"""Healing: what is compared, what is trained, what falls, and that it never ends worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from tolerance import FLOAT32_GRAPH_RELATIVE_L2

from edgecompress.core.errors import DataInvalid, Unsupported
from edgecompress.core.options import DecomposeOptions, FixedRanks, HealOptions, LayerRule
from edgecompress.graph.bonds import find_chains
from edgecompress.graph.model import Model, load_model
from edgecompress.graph.session import proto_bytes
from edgecompress.graph.slices import Slice, find_slices
from edgecompress.pipeline.decompose import decompose
from edgecompress.training.heal import Fall, HealTask, heal
from edgecompress.training.heal_augment import Augmenter
from edgecompress.training.heal_data import HealData, rows_are_free
from edgecompress.training.heal_loss import Distance, Found, Scores
from edgecompress.training.heal_ranks import BondValues, RankFall
from edgecompress.training.heal_slices import SliceLoss
from edgecompress.training.interpreter.interpreter import Interpreter

BLOCKS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2,6,6] x) => (float[N,3] y)
{
  a = Conv <pads = [1,1,1,1]> (x, w1, b1)
  r = Relu (a)
  c = Conv <pads = [1,1,1,1]> (r, w2)
  d = Relu (c)
  e = Conv <pads = [1,1,1,1]> (d, w3)
  s = Add (e, r)
  t = Relu (s)
  p = GlobalAveragePool (t)
  f = Flatten (p)
  y = MatMul (f, w4)
}
"""
SHAPES = {
    "w1": (6, 2, 3, 3),
    "b1": (6,),
    "w2": (6, 6, 3, 3),
    "w3": (6, 6, 3, 3),
    "w4": (6, 3),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small products take longer on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def teacher(tmp_path: Path) -> Model:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(BLOCKS)
    for name, shape in SHAPES.items():
        values = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        weight = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        proto.graph.initializer.append(weight)
    onnx.save(proto, tmp_path / "model.onnx")
    return load_model(tmp_path / "model.onnx")


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(32, 2, 6, 6)).astype(np.float32)} for _ in range(4)]


def student_of(teacher: Model, rank: int) -> tuple[Model, list[str]]:
    """All convolutions as two of one axis each, and their names."""
    student = teacher.clone()
    options = DecomposeOptions(
        format="spatial",
        ranks=FixedRanks((rank,)),
        minimum_gain=0.0,
        rank_multiple=1,
        rules=(LayerRule(match="MatMul_y", skip=True),),
    )
    _, results, _ = decompose(student, options, None)
    return student, [r.name for r in results if r.action == "decomposed"]


def task_of(teacher: Model, student: Model, feeds: list[dict[str, np.ndarray]]) -> HealTask:
    return HealTask(
        teacher=teacher,
        student=student,
        feeds=feeds,
        open_batch=True,
        outputs=("y",),
        scores=Scores(1, probabilities=False),
    )


OPTIONS = HealOptions(epochs=8, slice_epochs=0, batch=16, held_back=0.25, learning_rate=3e-3)


# What is compared.


def test_loss_is_the_divergence_at_a_temperature_and_the_relative_error() -> None:
    teacher = np.array([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])
    student = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 1.5]])

    def soft(scores: np.ndarray, heat: float) -> np.ndarray:
        each = np.exp(scores / heat)
        return each / each.sum(axis=1, keepdims=True)

    def divergence(heat: float) -> np.ndarray:
        p, q = soft(teacher, heat), soft(student, heat)
        return (p * np.log(p / q)).sum(axis=1)

    relative = ((student - teacher) ** 2).sum() / (teacher**2).sum()
    distance = Distance(("y",), Scores(1, probabilities=False), 3.0)
    values = [{"y": torch.from_numpy(one)} for one in (teacher, student)]
    found = Found()
    distance.add(found, *values)

    assert float(distance.loss(*values)) == pytest.approx(relative + 9 * divergence(3.0).mean())
    assert found.value == pytest.approx(divergence(1.0).mean())
    assert found.relative_l2 == pytest.approx(np.sqrt(relative))
    assert found.agreement == 0.5
    as_probabilities = Distance(("y",), Scores(1, probabilities=True), 3.0)
    given = [{"y": torch.from_numpy(soft(one, 1.0))} for one in (teacher, student)]
    again = Found()
    as_probabilities.add(again, *given)
    assert again.value == pytest.approx(found.value)


def test_without_scores_the_relative_error_decides() -> None:
    distance = Distance(("y",), None, 4.0)
    pair = {"y": torch.tensor([[3.0, 4.0]])}, {"y": torch.tensor([[3.0, 4.5]])}
    found = Found()
    distance.add(found, *pair)
    assert float(distance.loss(*pair)) == pytest.approx(0.01)
    assert (found.measure, found.value, found.agreement) == (
        "relative-l2",
        pytest.approx(0.1),
        None,
    )


def test_closer_scores_of_outputs_that_ran_away_are_not_better() -> None:
    start = Found(divergence=1.0, vectors=10, error=1.0, size=4.0)
    closer = Found(divergence=0.5, vectors=10, error=1.0, size=4.0)
    away = Found(divergence=0.5, vectors=10, error=9.0, size=4.0)
    lost = Found(divergence=float("nan"), vectors=10, error=1.0, size=4.0)
    assert closer.beats(start, start.relative_l2)
    assert not away.beats(start, start.relative_l2)
    assert not lost.beats(start, start.relative_l2)


# On what.


def test_held_back_samples_are_never_trained_on(feeds: list[dict[str, np.ndarray]]) -> None:
    def data() -> HealData:
        return HealData(
            feeds,
            open_batch=True,
            held_back=0.25,
            batch=16,
            generator=torch.Generator().manual_seed(3),
        )

    split = data()
    held = torch.cat([feed["x"] for feed in split.held_feeds()])
    steps = list(split.passes(torch.Generator().manual_seed(0)))
    trained = torch.cat([feed["x"] for step in steps for feed in step])
    assert (split.held, split.training, split.steps) == (32, 96, 6)
    both = torch.cat([held, trained]).flatten(1).numpy()
    every = np.concatenate([feed["x"] for feed in feeds]).reshape(128, -1)
    assert len(np.unique(both, axis=0)) == 128
    np.testing.assert_array_equal(np.sort(both[:, 0]), np.sort(every[:, 0]))
    again = list(data().passes(torch.Generator().manual_seed(0)))
    assert all(torch.equal(a[0]["x"], b[0]["x"]) for a, b in zip(steps, again, strict=True))


def test_feeds_of_a_fixed_batch_stay_whole(feeds: list[dict[str, np.ndarray]]) -> None:
    split = HealData(
        feeds, open_batch=False, held_back=0.1, batch=64, generator=torch.Generator().manual_seed(0)
    )
    steps = list(split.passes(torch.Generator()))
    assert [len(step) for step in steps] == [2]
    assert (split.held, split.training) == (32, 96)
    assert rows_are_free([(None, 2, 6, 6)], feeds)
    assert not rows_are_free([(32, 2, 6, 6)], feeds)
    assert not rows_are_free([(None, 2, 6, 6), (None,)], [{"x": np.zeros(3), "k": np.zeros(1)}])
    with pytest.raises(DataInvalid, match="there is only one batch"):
        HealData(feeds[:1], open_batch=False, held_back=0.1, batch=64, generator=torch.Generator())


def test_flips_moves_and_mixes_are_of_the_given_pictures() -> None:
    x = torch.arange(8 * 3 * 8 * 8, dtype=torch.float32).reshape(8, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    flipped = Augmenter(["flip"], {"x": x})({"x": x}, generator)["x"]
    kept = [torch.equal(a, b) for a, b in zip(flipped, x, strict=True)]
    turned = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, x, strict=True)]
    assert all(a != b for a, b in zip(kept, turned, strict=True))
    assert {True, False} == set(kept)

    moved = Augmenter(["crop"], {"x": x})({"x": x}, generator)["x"]
    wide = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    for picture, source in zip(moved.numpy(), wide, strict=True):
        places = [(i, j) for i in range(3) for j in range(3)]
        assert any(np.array_equal(picture, source[:, i : i + 8, j : j + 8]) for i, j in places)

    mixed = Augmenter(["mix"], {"x": x})({"x": x}, generator)["x"]
    # Pixels of a picture differ from those of another by the same amount everywhere.
    offsets = (mixed - x).flatten(1)
    assert torch.allclose(offsets, offsets[:, :1].expand_as(offsets), atol=1e-3)
    assert offsets.abs().max() > 1

    last = Augmenter(["flip"], {"x": x.permute(0, 2, 3, 1)})
    again = last({"x": x.permute(0, 2, 3, 1)}, torch.Generator().manual_seed(0))["x"]
    assert torch.equal(again.permute(0, 3, 1, 2), flipped)


def test_what_is_no_picture_is_not_augmented() -> None:
    with pytest.raises(Unsupported, match=r"flip is for pictures, and the model takes x \(4, 7\)"):
        Augmenter(["flip"], {"x": torch.zeros(4, 7)})
    feed = {"x": torch.zeros(4, 7)}
    assert Augmenter([], feed)(feed, torch.Generator()) is feed


# Slices.


def test_slices_end_where_everything_passes_through(teacher: Model) -> None:
    student, changed = student_of(teacher, 4)
    assert len(changed) == 3
    slices = find_slices(teacher, student, changed)
    # The residual block is one slice: while it is open two values are alive.
    assert slices == (Slice(("x",), ("r",)), Slice(("r",), ("y",)))


def test_a_slice_starts_from_the_student_and_its_gradient_stays_inside(teacher: Model) -> None:
    student, changed = student_of(teacher, 2)
    net, dense = Interpreter(student), Interpreter(teacher)
    feed = {"x": torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))}
    loss = SliceLoss(find_slices(teacher, student, changed), net)
    with torch.no_grad():
        wanted, own = dense(feed, loss.wanted), net(feed, loss.wanted)
    parts = {
        name: float((own[name] - wanted[name]).square().sum() / wanted[name].square().sum())
        for name in wanted
    }
    total = loss(feed, wanted)
    assert total.item() == pytest.approx(sum(parts.values()), rel=1e-5)
    total.backward()
    first = {n: w.grad.clone() for n, w in net.weights.items() if w.grad is not None}
    net.zero_grad()
    alone = net(feed, ["r"])["r"] - wanted["r"]
    (alone.square().sum() / wanted["r"].square().sum()).backward()
    inside = [n for n, w in net.weights.items() if w.grad is not None and w.grad.abs().sum() > 0]
    assert inside
    for name in inside:
        torch.testing.assert_close(first[name], net.weights[name].grad)
    assert find_slices(teacher, student, changed[:1]) == ()


# Ranks.


def falling(teacher: Model, rank: int) -> tuple[Model, Interpreter, RankFall]:
    student, changed = student_of(teacher, rank)
    prices = {layer.name: 1.0 for layer in student.find_layers().layers}
    chains = find_chains(student, changed, {}, prices)
    assert len(chains) == 3
    net = Interpreter(student)
    weights = dict(net.weights)
    optimizer = torch.optim.Adam(weights.values(), lr=1e-3)
    return student, net, RankFall(chains, weights, 10.0, optimizer, values_of(net))


def values_of(net: Interpreter) -> BondValues:
    """What bonds carry on 64 samples."""
    x = torch.randn(64, 2, 6, 6, generator=torch.Generator().manual_seed(5))
    return lambda names: [net({"x": x}, names)]


def test_the_gauge_changes_and_the_function_does_not(teacher: Model) -> None:
    student, changed = student_of(teacher, 5)
    x = {"x": torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))}
    before = Interpreter(student)(x)["y"].detach()
    prices = {layer.name: 1.0 for layer in student.find_layers().layers}
    chains = find_chains(student, changed, {}, prices)
    net = Interpreter(student)
    optimizer = torch.optim.Adam(net.parameters())
    RankFall(chains, dict(net.weights), 0.0, optimizer, values_of(net))
    after = net(x)["y"].detach()
    assert (after - before).norm() / before.norm() < FLOAT32_GRAPH_RELATIVE_L2
    (values,) = values_of(net)(tuple(chain.stages[0].output for chain in chains))
    for chain in chains:
        carried = values[chain.stages[0].output].detach().movedim(1, -1).flatten(0, -2)
        takes = net.weights[chain.stages[1].weight].detach().transpose(0, 1).flatten(1)
        moments, gram = carried.T @ carried / len(carried), takes @ takes.T
        torch.testing.assert_close(gram, moments, rtol=1e-3, atol=1e-4)
        assert (gram - gram.diag().diag()).abs().max() < 1e-4 * gram.max()
        assert bool((gram.diag().diff() <= 1e-6).all())


def test_penalty_and_its_gradient_in_closed_form(teacher: Model) -> None:
    _, net, fall = falling(teacher, 4)
    net.zero_grad()
    penalty = fall.penalty()
    # M / (2 M / (D + 1)) for each of 4 slices: D is 3 * in + 3 * out entries.
    entries = [3 * 2 + 3 * 6, 3 * 6 + 3 * 6, 3 * 6 + 3 * 6]
    assert penalty.item() == pytest.approx(sum(4 * (d + 1) / 2 for d in entries), rel=1e-5)
    penalty.backward()
    weights = [w for w in net.weights.values() if w.grad is not None and w.ndim == 4]
    left = next(w for w in weights if tuple(w.shape) == (4, 2, 3, 1))
    right = next(w for w in weights if tuple(w.shape) == (6, 4, 1, 3))
    energy = left.square().sum((1, 2, 3)) + right.square().sum((0, 2, 3))
    expected = left * ((entries[0] + 1) / energy).view(-1, 1, 1, 1)
    torch.testing.assert_close(left.grad, expected.detach(), rtol=1e-4, atol=1e-5)


def test_slices_without_effect_go_first_and_the_budget_is_met(teacher: Model) -> None:
    _, net, fall = falling(teacher, 4)
    x = {"x": torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():  # Slices 1 and 3 of the second convolution give nothing.
        for weight in net.weights.values():
            if tuple(weight.shape) == (4, 6, 3, 1):
                weight[[1, 3]] = 0.0
                break
    before = net(x)["y"].detach()
    net.zero_grad()
    net(x)["y"].square().sum().backward()
    fall.observe()
    start = fall.cost
    assert start == 10 + 4 * (3 * 2 + 3 * 6) + 2 * 4 * (3 * 6 + 3 * 6)
    assert fall.cut(start - 2 * 36)
    assert fall.cost == start - 2 * 36
    assert sorted(fall.ranks().values()) == [(2,), (4,), (4,)]
    torch.testing.assert_close(net(x)["y"].detach(), before)
    assert not fall.cut(0.0)
    assert all(rank == (1,) for rank in fall.ranks().values())


# The whole.


def test_it_gets_closer_and_says_by_how_much(
    teacher: Model, feeds: list[dict[str, np.ndarray]]
) -> None:
    student, changed = student_of(teacher, 2)
    outputs = {layer.name: teacher.output_name(layer) for layer in teacher.find_layers().layers}
    task = replace(
        task_of(teacher, student, feeds),
        slices=find_slices(teacher, student, changed),
        layer_outputs={name: outputs[name] for name in changed},
    )
    plain = student.clone()
    done = heal(task, replace(OPTIONS, slice_epochs=2))
    healing = done.healing
    assert done.changed
    assert healing.after < 0.5 * healing.before
    assert (healing.samples, healing.held_back) == (96, 32)
    assert (healing.epochs, healing.steps, healing.slices) == (10, 60, 2)
    assert set(done.errors) == set(changed)

    # Fresh samples, another engine: the healed file is closer to the float model.
    x = np.random.default_rng(7).normal(size=(64, 2, 6, 6)).astype(np.float32)
    wanted, before, after = (_run(one, x) for one in (teacher, plain, student))
    assert np.linalg.norm(after - wanted) < 0.7 * np.linalg.norm(before - wanted)


def test_the_same_seed_gives_the_same_bytes(
    teacher: Model, feeds: list[dict[str, np.ndarray]]
) -> None:
    contents = []
    for seed in (0, 0, 1):
        student, _ = student_of(teacher, 2)
        heal(task_of(teacher, student, feeds), replace(OPTIONS, epochs=2, seed=seed))
        contents.append(proto_bytes(student.to_proto()))
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


@pytest.mark.parametrize("rate", [1e5, 1e30])
def test_it_never_ends_worse(
    teacher: Model, feeds: list[dict[str, np.ndarray]], rate: float
) -> None:
    student, _ = student_of(teacher, 5)
    before = proto_bytes(student.to_proto())
    done = heal(task_of(teacher, student, feeds), replace(OPTIONS, learning_rate=rate, epochs=2))
    assert not done.changed
    assert proto_bytes(student.to_proto()) == before
    assert done.healing.best == 0
    assert done.healing.after == done.healing.before
    assert done.healing.note


def fall_task(teacher: Model, student: Model, feeds: list[dict[str, np.ndarray]]) -> HealTask:
    """All chains of the student, down to half its multiply-accumulates."""
    layers = student.find_layers().layers
    prices = {layer.name: (layer.macs or 0) / layer.parameters for layer in layers}
    chains = find_chains(student, list(student.origins.values()), {}, prices)
    inside = {chain.layer for chain in chains}
    outside = [a for a in layers if student.origins.get(a.name, a.name) not in inside]
    fall = Fall(
        chains=chains,
        fixed=sum(layer.macs or 0 for layer in outside),
        limit=0.5 * sum(layer.macs or 0 for layer in layers),
    )
    return replace(task_of(teacher, student, feeds), fall=fall)


def macs(model: Model) -> int:
    return sum(layer.macs or 0 for layer in model.find_layers().layers)


def test_ranks_fall_to_the_budget_and_the_graph_shrinks(
    teacher: Model, feeds: list[dict[str, np.ndarray]]
) -> None:
    student, _ = student_of(teacher, 6)
    task = fall_task(teacher, student, feeds)
    assert task.fall is not None
    done = heal(task, OPTIONS)
    assert macs(student) <= task.fall.limit
    assert done.healing.after < done.healing.before
    assert _run(student, feeds[0]["x"]).shape == (32, 3)
    sizes = {name: tuple(v.shape.numpy()) for name, v in student.ir.graph.initializers.items()}
    for chain in task.fall.chains:
        left, right = chain.stages
        assert done.ranks[chain.layer][0] < 6
        assert sizes[left.weight][0] == sizes[right.weight][1] == done.ranks[chain.layer][0]


def test_where_training_diverges_the_ranks_are_those_of_one_cut(
    teacher: Model, feeds: list[dict[str, np.ndarray]]
) -> None:
    student, _ = student_of(teacher, 6)
    task = fall_task(teacher, student, feeds)
    assert task.fall is not None
    done = heal(task, replace(OPTIONS, learning_rate=1e30, epochs=3))
    assert done.healing.best == 0
    assert done.healing.after == done.healing.before
    assert macs(student) <= task.fall.limit
    assert np.isfinite(_run(student, feeds[0]["x"])).all()


def _run(model: Model, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(
        proto_bytes(model.to_proto()), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])
