"""The acceptance test of every file that is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

_EIGHT_BIT_OPERATORS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv"})
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far optimised and unoptimised onnxruntime may differ.

    Attributes:
        relative_l2: |a - b| / |b| of each output over all samples.
        disagreement: Share of score vectors whose largest entry may be at another place; one
            more than this share is allowed, as a few samples cannot show a small share.
    """

    relative_l2: float
    disagreement: float


# Float operators are only summed in another order; fused int8 kernels round at other places, and
# a step of 1/255 that tips in an early layer reaches all later ones.
# Source: measured on real networks, see benchmarks/forms.
WEIGHTS_ONLY = Bounds(1e-5, 0.0)
EIGHT_BIT = Bounds(1e-2, 0.005)
HALF_PRECISION = Bounds(2e-2, 0.01)


def verify_file(
    path: Path, feeds: Sequence[Feed], *, reference: Sequence[Sequence[Array]] | None = None
) -> Verification:
    """Check a written file and run it, with and without onnxruntime's optimisations.

    Args:
        path: The file.
        feeds: At least one; their first axis counts as samples.
        reference: Outputs of the float model for each feed; finite ones have to stay finite.

    Raises:
        VerificationFailed: The checker refuses the file, onnxruntime cannot load or run it, an
            output is not finite where it should be, or the two runs differ by more than rounding.
    """
    where = str(path)
    bounds = _check(path)
    pairs: list[_Pair] = []
    try:
        plain, optimized = (open_session(path, optimize=on) for on in (False, True))
        names = [output.name for output in plain.get_outputs()]
        pairs = [_Pair(name) for name in names]
        for place, feed in enumerate(feeds):
            left, right = (run_feeds(session, [feed])[0] for session in (plain, optimized))
            expected = reference[place] if reference is not None else left
            for pair, a, b, c in zip(pairs, left, right, expected, strict=True):
                pair.add(a, b, c, where)
    except Unsupported as error:
        raise VerificationFailed(error.message, where=where) from error
    worst = 0.0
    for pair in pairs:
        worst = max(worst, pair.check(bounds, where))
    scored = pairs[0] if pairs and pairs[0].scored else None
    return Verification(
        checker=True,
        optimized_relative_l2=worst,
        optimized_top1_agreement=scored.agreement if scored else None,
        samples=sum(_samples(feed) for feed in feeds),
        fidelity=None,
    )


def _check(path: Path) -> Bounds:
    """Run the checker; the bounds for what is in the file."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(path, load_external_data=False).graph
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise VerificationFailed(f"onnx.checker: {short(error)}", where=str(path)) from error
    types = {info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)}
    types |= {tensor.data_type for tensor in graph.initializer}
    if any(node.op_type in _EIGHT_BIT_OPERATORS for node in graph.node):
        return EIGHT_BIT
    return HALF_PRECISION if any(half in types for half in _HALF) else WEIGHTS_ONLY


class _Pair:
    """One output, optimised and unoptimised, summed up over the feeds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error = self.size = 0.0
        self.agreements = self.scored = 0

    def add(self, plain: Any, optimized: Any, expected: Any, where: str) -> None:
        """Compare one feed's outputs; sequences of tensors are compared one by one."""
        if isinstance(plain, list):
            for a, b, c in zip(plain, optimized, expected, strict=True):
                self.add(a, b, c, where)
            return
        if not isinstance(plain, np.ndarray) or plain.dtype.kind not in "fiub":
            return
        if plain.shape != optimized.shape:
            raise VerificationFailed(
                f"output {self.name!r} is {plain.shape} without and {optimized.shape} with "
                "onnxruntime's optimisations",
                where=where,
            )
        finite = np.isfinite(expected) if np.shape(expected) == plain.shape else np.isfinite(plain)
        for found in (plain, optimized):
            wrong = int((~np.isfinite(found) & finite).sum())
            if wrong:
                raise VerificationFailed(
                    f"output {self.name!r} is NaN or infinite at {wrong} of {found.size} places "
                    "where it should not be",
                    where=where,
                )
        kept = finite & np.isfinite(plain) & np.isfinite(optimized)
        a, b = plain[kept].astype(np.float64), optimized[kept].astype(np.float64)
        self.error += float(np.sum((a - b) ** 2))
        self.size += float(np.sum(a**2))
        if plain.dtype.kind == "f" and plain.ndim > 1 and plain.shape[-1] > 1:
            same = plain.argmax(axis=-1) == optimized.argmax(axis=-1)
            self.agreements += int(np.sum(same))
            self.scored += int(np.size(same))

    @property
    def agreement(self) -> float:
        """Share of score vectors with the largest entry at the same place."""
        return self.agreements / self.scored

    @property
    def relative_l2(self) -> float:
        """|a - b| / |a|; |a - b| where a is 0."""
        return math.sqrt(self.error / self.size) if self.size else math.sqrt(self.error)

    def check(self, bounds: Bounds, where: str) -> float:
        """The relative error.

        Raises:
            VerificationFailed: It, or the share of other largest entries, is out of bounds.
        """
        if self.relative_l2 > bounds.relative_l2:
            raise VerificationFailed(
                f"output {self.name!r} differs by {self.relative_l2:.1e} with and without "
                f"onnxruntime's optimisations, {bounds.relative_l2:g} is allowed",
                where=where,
            )
        return self.relative_l2


def _samples(feed: Feed) -> int:
    """Samples in one feed: the first axis of its first input."""
    first = next(iter(feed.values()), None)
    return int(first.shape[0]) if first is not None and np.ndim(first) else 1
