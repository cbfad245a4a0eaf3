"""Operators in torch against onnxruntime, the ONNX backend suite and files from elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from interpreter_cases import CASES, Array, model_from, run
from oracle import run_unoptimized

from benchmarks.robustness.corpora import Case as File
from benchmarks.robustness.corpora import node_cases, node_names, odd_cases, unpack_odd
from benchmarks.training.interpreter import difference, outcomes
from edgecompress.core.errors import Unsupported
from edgecompress.training.interpreter.interpreter import Interpreter

SLICE = 120
"""Models of each corpus in an ordinary test run."""

REFUSED_ODD = {
    "burn-onnx__crates_onnx-ir_tests_fixtures_opset_compliance_opset_11": "UInt32",
    "burn-onnx__crates_onnx-ir_tests_fixtures_opset_compliance_opset_19": "DeformConv",
    "onnx2c__test_simple_networks_treeensembleclassifier": "TreeEnsembleClassifier",
    "tract__onnx_test_cases_linear_classifier_model": "LinearClassifier",
    "tract__onnx_test_cases_xgboost_classifier_tree_model": "TreeEnsembleClassifier",
}
"""Files that run in onnxruntime and are refused here, and what the message names."""

REFUSED_NODES = 242
"""Models of the backend suite that are refused, at most; none of the others may differ."""


@pytest.mark.parametrize(
    "name", [name for name in CASES if CASES[name].opset >= 7 or name == "Clip-6"]
)
def test_forward_is_that_of_onnxruntime(name: str) -> None:
    case = CASES[name]
    proto, feed = case.proto(), case.feed()
    (expected,) = run_unoptimized(proto, feed)
    (found,) = run(proto, feed)
    assert not difference(expected, torch.from_numpy(found))


def test_sum_of_opset_6_broadcasts_from_an_axis() -> None:
    """onnxruntime does not have it; by hand, z lies along the second axis of three."""
    case = CASES["Add-6"]
    feed = case.feed()
    (found,) = run(case.proto(), feed)
    assert np.array_equal(found, feed["x"] + feed["z"][None, :, None])


def problems(cases: Iterator[File]) -> tuple[list[str], dict[str, str]]:
    """What differs, one line for each file; what is refused, with the message."""
    found = outcomes(cases)
    lines = [f"{name}: {text}" for name, (kind, text) in found.items() if kind == "wrong"]
    return lines, {name: text for name, (kind, text) in found.items() if kind == "refused"}


def chosen(names: list[str], full: bool) -> list[str]:
    """All, or a seeded slice."""
    return names if full else random.Random(0).sample(names, SLICE)


def test_odd_files(data_dir: Path, tmp_path: Path, full: bool) -> None:
    """Files of other tools' test suites: equal, or on the list of what is refused."""
    names = unpack_odd(data_dir, tmp_path)
    wrong, refused = problems(odd_cases(chosen(names, full), tmp_path))
    assert not wrong, "\n".join(wrong)
    for name, message in refused.items():
        assert REFUSED_ODD.get(name, "not on the list") in message, name


@pytest.mark.slow
def test_backend_suite(tmp_path: Path, full: bool) -> None:
    """Models of single operators that come with onnx: equal or refused."""
    if not full:
        pytest.skip("collecting the suite takes long; --full runs it")
    strings = {"equal_string", "equal_string_broadcast"}
    names = [name for name in node_names() if name not in strings]
    wrong, refused = problems(node_cases(names, tmp_path))
    assert not wrong, "\n".join(wrong)
    assert len(refused) <= REFUSED_NODES
    assert all("does not cover" in message for message in refused.values())


UNKNOWN = """
<ir_version: 10, opset_import: ["" : 21, "custom.ops" : 1]>
graph (float[2] x, bool c) => (float[2] y)
{
    a = custom.ops.Strange (x)
    b = If (c) <then_branch = t () => (float[2] p) { p = RandomNormalLike (x) },
               else_branch = e () => (float[2] q) { q = Identity (a) }>
    y = Add (a, b)
}
"""


def test_all_unknown_operators_are_named_at_once() -> None:
    with pytest.raises(Unsupported, match=r"RandomNormalLike .*custom\.ops:Strange"):
        Interpreter(model_from(UNKNOWN))


def one_node(body: str, opset: int = 21, types: str = "float[1,2,4,4] x") -> str:
    return (
        f'<ir_version: 10, opset_import: ["" : {opset}]> graph ({types}) => (float y) {{ {body} }}'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            one_node(
                "[n] y, m, v = BatchNormalization <training_mode = 1> (x, s, s, s, s)",
                types="float[1,2,4,4] x, float[2] s",
            ),
            "node 'n': the interpreter does not cover BatchNormalization with statistics",
        ),
        (
            one_node("[n] y = MaxPool <kernel_shape = [2]> (x)"),
            "MaxPool with 4 axes and a window of 1",
        ),
        (
            one_node("y = Cast <to = 8> (x)"),
            "values of type STRING cannot be computed in torch",
        ),
        (
            one_node(
                "y = RNN <hidden_size = 2, activations = ['Cosh']> (z, w, w)".replace("'", '"'),
                types="float[1,2,2] z, float[1,2,2] w",
            ),
            "RNN with activation cosh",
        ),
    ],
)
def test_forms_that_are_not_covered_are_refused(text: str, message: str) -> None:
    interpreter = Interpreter(model_from(text))
    shapes = {"x": (1, 2, 4, 4), "s": (2,), "z": (1, 2, 2), "w": (1, 2, 2)}
    feed = {name: torch.ones(shapes[name]) for name in interpreter.inputs}
    with pytest.raises(Unsupported, match=message):
        interpreter(feed)


INTEGERS = """
<ir_version: 10, opset_import: ["" : 21]>
graph (int64[6] a, int64[6] b) => (int64[6] quotient, int64[6] rest, int64[6] power, bool[6] less)
{
    quotient = Div (a, b)
    rest = Mod (a, b)
    two = Constant <value_int = 2> ()
    power = Pow (a, two)
    less = Less (a, b)
}
"""


def test_integers_stay_integers() -> None:
    """Quotients go towards zero, remainders take the sign of the divisor, nothing is rounded."""
    large = (1 << 60) + 1
    a = np.array([7, -7, 7, -7, large, 3_000_000_019], np.int64)
    b = np.array([2, 2, -2, -2, 1, 1_000], np.int64)
    found = run(onnx.parser.parse_model(INTEGERS), {"a": a, "b": b})
    assert [value.tolist() for value in found[:2]] == [
        [3, -3, -3, 3, large, 3_000_000],
        [1, 1, -1, -1, 0, 19],
    ]
    assert found[2].tolist()[:2] == [49, 49]
    assert found[2].tolist()[5] == 3_000_000_019**2
    assert found[3].tolist() == [False, True, False, True, False, False]


def test_half_floats_are_computed_as_such() -> None:
    text = one_node("y = Add (x, x)", types="float16[3] x").replace("(float y)", "(float16[3] y)")
    feed: dict[str, Array] = {"x": np.array([1.0, 40_000.0, 2.0**-24], np.float16)}
    proto = onnx.parser.parse_model(text)
    assert run(proto, feed)[0].dtype == np.float16
    assert np.isinf(run(proto, feed)[0][1])  # 80,000 is above float16
    wide = run(proto, feed, keep_half=False)[0]
    assert wide.dtype == np.float32
    assert wide[1] == 80_000
