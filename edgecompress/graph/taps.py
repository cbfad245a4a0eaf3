"""Looking at activations inside a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir

from edgecompress.core.arrays import Array
from edgecompress.core.samples import Feed
from edgecompress.graph.model import Model
from edgecompress.graph.session import open_session, run_feeds

_BOUNDS = frozenset({"Relu", "Clip"})
_EIGHT_BIT = _BOUNDS | {
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Flatten",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


def eight_bit_values(model: Model) -> tuple[str, ...]:
    """Activations that 8-bit kernels read or write, in the order of the graph.

    What goes only into a Relu or Clip is left out: kernels have these built in.
    """
    found: dict[str, None] = {}
    for node in model.ir.graph:
        if node.domain == "" and node.op_type in _EIGHT_BIT:
            values = [value for value in (*node.inputs, *node.outputs) if _is_activation(value)]
            found.update((value.name or "", None) for value in values if value is not None)
    return tuple(found)


def _is_activation(value: ir.Value | None) -> bool:
    if value is None or not value.name or value.const_value is not None:
        return False
    if value.dtype not in (None, ir.DataType.FLOAT):
        return False
    uses = list(value.uses())
    return not (len(uses) == 1 and uses[0].node.op_type in _BOUNDS and value.producer() is not None)


def run_taps(model: Model, names: Iterable[str], feeds: Iterable[Feed]) -> Iterator[list[Array]]:
    """Values of a model by name, feed by feed.

    Args:
        model: As it is now.
        names: Values of its top-level graph.
        feeds: Inputs.

    Yields:
        One array per name, in order.

    Raises:
        Unsupported: onnxruntime cannot run the model on a feed.
    """
    wanted = list(names)
    inputs = {spec.name for spec in model.inputs()}
    proto = model.to_proto()
    there = {output.name for output in proto.graph.output}
    made = [name for name in dict.fromkeys(wanted) if name not in inputs]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in there)
    session = open_session(proto, optimize=True)
    order = [output.name for output in session.get_outputs()]
    for feed in feeds:
        values = dict(zip(order, run_feeds(session, [feed])[0], strict=True))
        values.update(feed)
        yield [values[name] for name in wanted]
