"""Which nodes of a file came from one layer by a decomposition.

A node of a chain is called ``LAYER/0``, ``LAYER/1`` and so on. In a file with all its names each
node also says so in its own metadata (`LAYER_KEY`). In a file with short names that would be a
good part of it, so there one entry of the model's metadata (`LAYERS_KEY`) says that the names tell:
``*`` that every name of this form does, or else the layers for which they do.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

LAYER_KEY = "edgecompress.layer"
"""Metadata of a node: the layer that it was made from."""

LAYERS_KEY = "edgecompress.layers"
"""Metadata of a model: the layers whose factors are in it, one a line, or `EVERY`."""

EVERY = "*"


def read_origins(model: ir.Model) -> dict[str, str]:
    """Node name -> layer that the node was decomposed from, for the nodes of the top level."""
    listed = set(model.metadata_props.get(LAYERS_KEY, "").split("\n")) - {""}
    found: dict[str, str] = {}
    for node in model.graph:
        name = node.name or ""
        told = _layer_of(name) if EVERY in listed else _listed(name, listed)
        layer = node.metadata_props.get(LAYER_KEY) or told
        if layer:
            found[name] = layer
    return found


def note_origins(proto: onnx.ModelProto, origins: Mapping[str, str]) -> None:
    """List the layers whose factors are in a model, in place; nodes that say it themselves stay.

    A node whose name does not say what it came from gets metadata of its own.
    """
    told: dict[str, str] = {}
    plain = True
    for node in proto.graph.node:
        layer = origins.get(node.name, "")
        if any(prop.key == LAYER_KEY for prop in node.metadata_props):
            continue
        if layer and "\n" not in layer and _listed(node.name, {layer}) == layer:
            told[node.name] = layer
        elif layer:
            node.metadata_props.add(key=LAYER_KEY, value=layer)
        plain = plain and _layer_of(node.name) == told.get(node.name, "")
    for place, prop in reversed(list(enumerate(proto.metadata_props))):
        if prop.key == LAYERS_KEY:
            del proto.metadata_props[place]
    if told:
        layers = EVERY if plain else "\n".join(dict.fromkeys(told.values()))
        proto.metadata_props.add(key=LAYERS_KEY, value=layers)


def _layer_of(name: str) -> str:
    """What a node's name is before the number at its end; empty if there is none."""
    head, slash, tail = name.rpartition("/")
    return head if slash and tail.isdecimal() else ""


def _listed(name: str, layers: set[str]) -> str:
    """The listed layer that a node's name begins with, numbers after it; empty if none."""
    head = _layer_of(name)
    while head and head not in layers:
        head = _layer_of(head)
    return head
