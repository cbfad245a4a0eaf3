"""The acceptance test of every file that is written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgecompress.core.arrays import Array
from edgecompress.core.errors import Unsupported, VerificationFailed
from edgecompress.core.report import Verification
from edgecompress.core.samples import Feed
from edgecompress.graph.session import open_session, run_feeds, short

_EIGHT_BIT_OPERATORS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
_HALF = frozenset({int(onnx.TensorProto.FLOAT16), int(onnx.TensorProto.BFLOAT16)})


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far optimised and unoptimised onnxruntime may differ.

    Attributes:
        relative_l2: |a - b| / |b| of each output over all samples.
        disagreement: Share of score vectors whose largest entry may be at another place, one
            vector more being allowed, as a few samples cannot show a small share.
        most: Where the file is further than ``relative_l2`` from its float model, the two runs
            may be as far apart as that, but never further than this.
    """

    relative_l2: float
    disagreement: float
    most: float


# Float operators are only summed in another order; fused int8 kernels round at other places, and
# a step of 1/255 that tips in an early layer reaches all later ones: in deep networks the runs
# drift apart until they are as far from each other as quantization has put them from the float
# model. What these bounds are there to find is kernels that are wrong: errors of 0.7 to 3.
# Source: measured on real networks, see docs/file-format.md.
WEIGHTS_ONLY = Bounds(1e-5, 0.0, 1e-3)
EIGHT_BIT = Bounds(1e-2, 0.005, 0.1)
HALF_PRECISION = Bounds(2e-2, 0.01, 0.1)


def verify_file(
    path: Path, feeds: Sequence[Feed], *, reference: Path | None = None
) -> Verification:
    """Check a written file and run it, with and without onnxruntime's optimisations.

    Args:
        path: The file.
        feeds: Their first axis counts as samples.
        reference: The float model with the same inputs and outputs. Where its outputs are finite
            those of the file have to be; its distance says what is rounding (see `Bounds`).

    Raises:
        VerificationFailed: The checker refuses the file, onnxruntime cannot load or run it, an
            output is not finite where it should be, or the two runs differ by more than rounding.
    """
    where = str(path)
    bounds = _check(path)
    try:
        runs = [open_session(path, optimize=False), open_session(path, optimize=True)]
        if reference is not None:
            runs.append(open_session(reference, optimize=True))
        pairs = [_Pair(output.name, where) for output in runs[0].get_outputs()]
        for feed in feeds:
            outputs = [run_feeds(session, [feed])[0] for session in runs]
            for place, pair in enumerate(pairs):
                pair.add(*(found[place] for found in outputs))
    except Unsupported as error:
        raise VerificationFailed(error.message, where=where) from error
    worst = max((pair.check(bounds) for pair in pairs), default=0.0)
    scored = pairs[0] if pairs and pairs[0].fused.vectors else None
    return Verification(
        checker=True,
        optimized_relative_l2=worst,
        optimized_top1_agreement=scored.fused.agreement if scored else None,
        samples=sum(_samples(feed) for feed in feeds),
        fidelity=None,
    )


def _check(path: Path) -> Bounds:
    """Run the checker; the bounds for what is in the file."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        OSError,
    ) as error:
        raise VerificationFailed(f"onnx.checker: {short(error)}", where=str(path)) from error
    graph = model.graph
    nodes = list(_nodes(graph))
    if any(n.op_type in _EIGHT_BIT_OPERATORS or n.op_type.startswith("QLinear") for n in nodes):
        return EIGHT_BIT
    types = {info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)}
    types |= {tensor.data_type for tensor in graph.initializer}
    types |= {a.i for n in nodes if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    return HALF_PRECISION if types & _HALF else WEIGHTS_ONLY


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


@dataclass
class _Distance:
    """Between two runs, summed up over the feeds."""

    error: float = 0.0
    size: float = 0.0
    other: int = 0
    vectors: int = 0

    def add(self, a: Array, b: Array) -> None:
        kept = np.isfinite(a) & np.isfinite(b)
        left, right = a[kept].astype(np.float64), b[kept].astype(np.float64)
        self.error += float(np.sum((left - right) ** 2))
        self.size += float(np.sum(left**2))
        if a.dtype.kind == "f" and a.ndim > 1 and a.shape[-1] > 1:
            different = a.argmax(axis=-1) != b.argmax(axis=-1)
            self.other += int(np.sum(different))
            self.vectors += int(np.size(different))

    @property
    def relative_l2(self) -> float:
        """|a - b| / |a|; |a - b| where a is 0."""
        return math.sqrt(self.error / self.size) if self.size else math.sqrt(self.error)

    @property
    def agreement(self) -> float:
        """Share of score vectors with the largest entry at the same place."""
        return 1.0 - self.other / self.vectors if self.vectors else 1.0


class _Pair:
    """One output, unoptimised and optimised, and that of the float model."""

    def __init__(self, name: str, where: str) -> None:
        self.name = name
        self.where = where
        self.fused = _Distance()
        self.compressed = _Distance()

    def add(self, plain: Any, optimized: Any, expected: Any = None) -> None:
        """Compare one feed's outputs; sequences of tensors are compared one by one."""
        if isinstance(plain, list):
            expected = expected if expected is not None else [None] * len(plain)
            for a, b, c in zip(plain, optimized, expected, strict=True):
                self.add(a, b, c)
            return
        if not isinstance(plain, np.ndarray) or plain.dtype.kind not in "fiub":
            return
        if plain.shape != optimized.shape:
            raise self._failure(
                f"is {plain.shape} without and {optimized.shape} with onnxruntime's optimisations"
            )
        comparable = expected is not None and np.shape(expected) == plain.shape
        finite = np.isfinite(expected if comparable else plain)
        for found in (plain, optimized):
            wrong = int((~np.isfinite(found) & finite).sum())
            if wrong:
                raise self._failure(
                    f"is NaN or infinite at {wrong} of {found.size} places where it should not be"
                )
        self.fused.add(plain, optimized)
        if comparable:
            self.compressed.add(expected, plain)

    def check(self, bounds: Bounds) -> float:
        """The relative error.

        Raises:
            VerificationFailed: It, or the number of other largest entries, is out of bounds.
        """
        allowed = max(bounds.relative_l2, min(self.compressed.relative_l2, bounds.most))
        found = self.fused.relative_l2
        if not found <= allowed:
            raise self._failure(
                f"differs by {found:.1e} (relative L2) with and without onnxruntime's "
                f"optimisations; {allowed:.1e} is allowed"
            )
        if bounds.disagreement:
            most = 1 + max(bounds.disagreement * self.fused.vectors, self.compressed.other)
            if self.fused.other > most:
                raise self._failure(
                    f"has another largest entry in {self.fused.other} of {self.fused.vectors} "
                    "vectors with onnxruntime's optimisations"
                )
        return found

    def _failure(self, problem: str) -> VerificationFailed:
        return VerificationFailed(f"output {self.name!r} {problem}", where=self.where)


def _samples(feed: Feed) -> int:
    """Samples in one feed: the first axis of its first input."""
    first = next(iter(feed.values()), None)
    return int(first.shape[0]) if first is not None and np.ndim(first) else 1
