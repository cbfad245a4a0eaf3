"""Walk through a model layer by layer on two streams: the float model and the one being compressed.

The graph is cut at its layers. Between two layers the nodes run once on each stream; at a layer
the caller sees what enters it on both, decides, and the compressed stream goes on with the
decision. All layers together cost as much as two runs of the model, not one run for each layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgecompress.core.arrays import Array, FloatArray
from edgecompress.core.layers import Layer
from edgecompress.core.samples import Feed
from edgecompress.core.stages import Stage
from edgecompress.graph.fragments import Fragment, Values, values_read
from edgecompress.graph.model import Model


@dataclass
class _Stream:
    """Values alive at the cut, one set for each feed."""

    model: Model
    values: list[Values]

    def run(self, nodes: Sequence[ir.Node], wanted: Sequence[str]) -> None:
        if not nodes or not wanted:
            return
        fragment = Fragment(self.model.ir, nodes, wanted, self.values[0])
        for values in self.values:
            values.update(zip(wanted, fragment.run(values), strict=True))

    def produce(self, names: Sequence[str]) -> None:
        """Compute values from what is at hand, however many nodes that takes."""
        needed: set[int] = set()
        at_hand = self.values[0]
        open_nodes = [node for node in self.model.ir.graph if _makes(node, names)]
        while open_nodes:
            node = open_nodes.pop()
            if id(node) in needed:
                continue
            needed.add(id(node))
            makers = [v.producer() for v in values_read(node) if v.name not in at_hand]
            open_nodes += [maker for maker in makers if maker is not None]
        self.run([node for node in self.model.ir.graph if id(node) in needed], names)

    def drop(self, dead: set[str]) -> None:
        for values in self.values:
            for name in dead & values.keys():
                del values[name]


class Step:
    """One layer of the walk.

    Attributes:
        layer: The layer, as found before anything was changed.
        reference_inputs: One array for each feed: what enters the layer in the float model, in
            canonical order ((n, c, *spatial) or (..., in)).
        inputs: The same in the compressed stream.
        reference_outputs: What the float layer gives, bias included, in canonical order.
    """

    def __init__(self, stepper: Stepper, layer: Layer) -> None:
        self.layer = layer
        self._stepper = stepper

    @property
    def reference_inputs(self) -> list[Array]:
        """What enters the layer in the float model."""
        return self._stepper.entering(self.layer, compressed=False)

    @property
    def inputs(self) -> list[Array]:
        """What enters the layer in the compressed stream."""
        return self._stepper.entering(self.layer, compressed=True)

    @property
    def reference_outputs(self) -> list[Array]:
        """What the float layer gives."""
        return self._stepper.leaving(self.layer)

    def outputs(self, stages: Sequence[Stage], bias: FloatArray | None) -> list[Array]:
        """What these stages would give on the compressed stream; nothing is changed.

        Args:
            stages: As for `Model.replace`.
            bias: (out,) or None.

        Returns:
            One array for each feed, canonical order.
        """
        return self._stepper.attempt(self.layer, stages, bias)

    def replace(self, stages: Sequence[Stage], bias: FloatArray | None) -> None:
        """Put the stages into the model, in place; the compressed stream goes on with them."""
        self._stepper.commit(self.layer, stages, bias)


class Stepper:
    """The walk.

    Args:
        model: Compressed in place by `Step.replace`; a clone of it is the float reference.
        layers: Those to stop at, in topological order.
        feeds: Inputs of the model, at least one.
    """

    def __init__(self, model: Model, layers: Sequence[Layer], feeds: Sequence[Feed]) -> None:
        self._model = model
        self._layers = layers
        reference = model.clone()
        self._reference = _Stream(reference, [dict(feed) for feed in feeds])
        self._compressed = self._reference
        self._nodes = list(reference.ir.graph)
        self._twins = list(model.ir.graph)
        self._last_use = _last_uses(reference.ir, self._nodes)

    def __iter__(self) -> Iterator[Step]:
        place = {id(node): index for index, node in enumerate(self._twins)}
        sites = {
            layer.name: sorted(place[id(node)] for node in self._model.layer_nodes(layer))
            for layer in self._layers
        }
        done: set[int] = set()
        following = [sites[layer.name][0] for layer in self._layers[1:]] + [len(self._nodes)]
        for layer, after in zip(self._layers, following, strict=True):
            site = sites[layer.name]
            pending = [index for index in range(site[0]) if index not in done]
            self._advance(pending, site[0])
            done.update(pending)
            step = Step(self, layer)
            leaving = [n for n in self._needed(site, site[0] + 1) if self._last_use[n] not in site]
            self._reference.produce(leaving)
            yield step
            if self._compressed is not self._reference:
                self._compressed.produce(leaving)
            done.update(site)
            if after > site[0]:  # two weights of one recurrent cell are two layers at one node
                self._drop_dead(site[0])
        self._finish(done)

    def results(self) -> tuple[list[list[Array]], list[list[Array]]]:
        """Outputs of the float model and of the compressed one after the walk, by feed."""
        names = [value.name or "" for value in self._reference.model.ir.graph.outputs]
        both = (self._reference, self._compressed)
        first, second = (
            [[values[name] for name in names] for values in stream.values] for stream in both
        )
        return first, second

    def entering(self, layer: Layer, *, compressed: bool) -> list[Array]:
        """The layer's input on one of the streams, canonical order."""
        name = self._model.activation_name(layer)
        stream = self._compressed if compressed else self._reference
        return [self._model.canonical(layer, values[name]) for values in stream.values]

    def leaving(self, layer: Layer) -> list[Array]:
        """The float layer's output, canonical order."""
        name = self._model.output_name(layer)
        values = self._reference.values
        return [self._model.canonical(layer, one[name]) for one in values]

    def attempt(
        self, layer: Layer, stages: Sequence[Stage], bias: FloatArray | None
    ) -> list[Array]:
        """Outputs of stages that are not put into the model."""
        trial = _Stream(self._reference.model.clone(), [dict(v) for v in self._compressed.values])
        trial.model.replace(layer, stages, bias)
        output = self._model.output_name(layer)
        trial.produce([output])
        return [self._model.canonical(layer, values[output]) for values in trial.values]

    def commit(self, layer: Layer, stages: Sequence[Stage], bias: FloatArray | None) -> None:
        """Replace the layer in the model; the streams part here if they have not yet."""
        self._model.replace(layer, stages, bias)
        if self._compressed is self._reference:
            values = [dict(values) for values in self._reference.values]
            self._compressed = _Stream(self._model, values)

    def _advance(self, pending: list[int], upto: int) -> None:
        """Run the nodes before the next layer and keep what is used from there on."""
        wanted = self._needed(pending, upto)
        self._reference.run([self._nodes[index] for index in pending], wanted)
        if self._compressed is not self._reference:
            self._compressed.run([self._twins[index] for index in pending], wanted)

    def _needed(self, pending: list[int], upto: int) -> list[str]:
        made = [value.name or "" for index in pending for value in self._nodes[index].outputs]
        return [name for name in made if self._last_use.get(name, -1) >= upto]

    def _drop_dead(self, upto: int) -> None:
        dead = {name for name, last in self._last_use.items() if last <= upto}
        self._reference.drop(dead)
        self._compressed.drop(dead)

    def _finish(self, done: set[int]) -> None:
        pending = [index for index in range(len(self._nodes)) if index not in done]
        self._advance(pending, len(self._nodes))


def _makes(node: ir.Node, names: Sequence[str]) -> bool:
    return any(value.name in names for value in node.outputs)


def _last_uses(model: ir.Model, nodes: Sequence[ir.Node]) -> dict[str, int]:
    """Value name -> index of the last node that reads it; the end for graph outputs."""
    last = {
        value.name or "": index for index, node in enumerate(nodes) for value in values_read(node)
    }
    last.update({value.name or "": len(nodes) for value in model.graph.outputs})
    return last
