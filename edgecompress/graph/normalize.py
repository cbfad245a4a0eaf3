"""Brings a graph into the form that is compressed, and proves that it computes the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import version_converter

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import Unsupported
from edgecompress.core.report import FileFact
from edgecompress.graph.affine import described, fold_affine
from edgecompress.graph.compare import Original
from edgecompress.graph.fold import drop_unused, fold_constants, lift_constants
from edgecompress.graph.gemm import simplify_gemms
from edgecompress.graph.model import Model
from edgecompress.graph.session import short
from edgecompress.graph.shapes import infer_shapes
from edgecompress.graph.values import ONNX_DOMAINS, attribute_string, constant_array, name_nodes

CODEC_KEY = "edgecompress.codec"
"""Model metadata of files that we packed: their decode must not be folded."""

TARGET_OPSET = 21
TARGET_IR = 10
OLDEST_OPSET = 13
"""The packed forms need opset 13."""

_NO_FILE = FileFact(path="", sha256="", size_bytes=0)
_FAILURES = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    RuntimeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ir.passes.InvariantError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
)
"""What the version converters raise on graphs that they cannot handle."""


def normalized(
    proto: onnx.ModelProto, input_shapes: Mapping[str, Shape]
) -> tuple[ir.Model, list[str]]:
    """A graph in the form that is compressed, and notes for the report.

    Tried in turn until one gives the outputs of the original: lifted to opset 21 and cleaned;
    cleaned at its own opset; as it is.

    Raises:
        Unsupported: The opset is below 13 and cannot be lifted.
    """
    notes: list[str] = []
    original = Original(proto, input_shapes)
    if original.reason:
        notes.append(f"not compared with the original: {original.reason}")
    opset = _opset(proto)
    problems: list[str] = []
    with _quiet():
        for lift in (True, False):
            if (lift and opset >= TARGET_OPSET) or (not lift and opset < OLDEST_OPSET):
                continue
            try:
                model, done = _cleaned(proto, lift=lift)
            except _FAILURES as error:
                problems.append(short(error))
                continue
            problem = original.difference(ir.to_proto(model))
            if not problem:
                return model, [*notes, *done, *_kept_opset(problems, opset)]
            problems.append(problem)
    reason = "; ".join(dict.fromkeys(problems))
    if opset < OLDEST_OPSET:
        raise Unsupported(f"opset {opset} cannot be lifted to {TARGET_OPSET}: {reason}")
    return _plain(proto), [*notes, f"left as it is, cleaning would change it: {reason}"]


def _plain(proto: onnx.ModelProto) -> ir.Model:
    """The graph with defaults bound and constants as initializers, nothing else."""
    model = ir.from_proto(proto)
    for value in [value for value in model.graph.inputs if value.is_initializer()]:
        model.graph.inputs.remove(value)
    lift_constants(model.graph)
    return model


def _kept_opset(problems: list[str], opset: int) -> list[str]:
    return [f"opset {opset} kept: {problem}" for problem in problems[:1]]


def _opset(proto: onnx.ModelProto) -> int:
    versions = [o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS]
    if versions:
        return int(versions[0])
    return TARGET_OPSET if proto.opset_import else 1


def _cleaned(proto: onnx.ModelProto, *, lift: bool) -> tuple[ir.Model, list[str]]:
    model, notes = ir.from_proto(proto), []
    opset = _opset(proto)
    passes.InlinePass()(model)
    bound = [value for value in model.graph.inputs if value.is_initializer()]
    for value in bound:
        model.graph.inputs.remove(value)
    if bound:
        notes.append(f"{len(bound)} inputs with default values are now constants")
    if lift:
        model = _lifted(model, opset)
        notes.append(f"opset {opset} lifted to {TARGET_OPSET}")
    model.ir_version = max(model.ir_version, TARGET_IR if lift else 8)
    lift_constants(model.graph)
    drop_unused(model.graph)
    name_nodes(model.graph)
    steps: tuple[Callable[[ir.Model], int], ...] = (fold_constants, _simplify, _drop_identities)
    for step in steps:
        step(model)
    name_nodes(model.graph)
    working = Model(model, _NO_FILE)
    notes.extend(described(fold_affine(working)))
    drop_unused(model.graph)
    return model, notes


def _simplify(model: ir.Model) -> int:
    return simplify_gemms(model.graph) + _explicit_pads(model)


def _lifted(model: ir.Model, opset: int) -> ir.Model:
    version_converter.convert_version(model, TARGET_OPSET, fallback=True)
    reached = model.opset_imports.get("", opset)
    if reached != TARGET_OPSET:
        raise ValueError(f"the version converter stopped at opset {reached}")
    lifted = ir.to_proto(model)
    lifted.ir_version = max(lifted.ir_version, TARGET_IR)
    try:
        onnx.checker.check_model(lifted)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"the lifted graph is not valid: {short(error)}") from error
    return model


def _explicit_pads(model: ir.Model) -> int:
    """Write out automatic padding where it does not depend on an open size, in place."""
    from edgecompress.graph.operators import resolved_pads

    automatic = [
        node
        for node in model.graph
        if node.op_type == "Conv"
        and node.domain in ONNX_DOMAINS
        and attribute_string(node, "auto_pad", "NOTSET") != "NOTSET"
    ]
    count, shapes = 0, infer_shapes(model, {}) if automatic else {}
    for node in automatic:
        weight = constant_array(node.inputs[1])
        entering = node.inputs[0]
        if weight is None or entering is None:
            continue
        pads = resolved_pads(node, weight.shape[2:], shapes.get(entering.name or ""))
        if pads is not None:
            del node.attributes["auto_pad"]
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)
            count += 1
    return count


def _drop_identities(model: ir.Model) -> int:
    """Remove ``Identity`` nodes between two nodes of the top-level graph, in place."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "Identity" or node.domain not in ONNX_DOMAINS:
            continue
        source, output = node.inputs[0], node.outputs[0]
        if source is None or output.is_graph_output():
            continue
        output.replace_all_uses_with(source)
        model.graph.remove(node, safe=True)
        count += 1
    return count


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converters' own warnings off stderr: what matters of them is in the notes."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
