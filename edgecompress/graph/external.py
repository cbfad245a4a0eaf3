"""External data: read from inside the model's folder only, and put into the graph."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from edgecompress.core.errors import ModelInvalid, ResourceLimit, UnsafeInput
from edgecompress.graph.tensor_checks import element_count, packed_bytes

LARGEST_BYTES = 1_900_000_000
"""Largest model, external data included: what protobuf can hold, with room for what we add."""

_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph: initializers and attributes, bodies included."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from node_tensors(node)


def node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """All tensors in the attributes of a node, bodies included."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        if attribute.HasField("g"):
            yield from tensors(attribute.g)
        for graph in attribute.graphs:
            yield from tensors(graph)


def model_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model."""
    yield from tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from node_tensors(node)


def read_external(proto: onnx.ModelProto, folder: Path, own_bytes: int) -> tuple[Path, ...]:
    """Put all external data into the model, in place.

    Args:
        proto: Sizes of its tensors are checked here.
        folder: Folder of the model file.
        own_bytes: Size of the model file.

    Returns:
        The files that were read, sorted.

    Raises:
        UnsafeInput: A location is absolute, leaves the folder, or is a link.
        ModelInvalid: A file is missing or too short, or an entry is malformed.
        ResourceLimit: Everything together is above `LARGEST_BYTES`.
    """
    files: set[Path] = set()
    total = own_bytes
    for tensor in model_tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        path, offset, length = _place(tensor, folder)
        total += length
        if total > LARGEST_BYTES:
            raise ResourceLimit(f"model and external data are above {LARGEST_BYTES:,} bytes")
        data = _read(tensor.name, path, offset, length)
        files.add(path)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data
    return tuple(sorted(files))


def named_files(proto: onnx.ModelProto, folder: Path) -> tuple[Path, ...]:
    """Files that hold tensors of a model, as it names them: not looked at, and not judged."""
    locations = {
        entry.value
        for tensor in model_tensors(proto)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    # What is not UTF-8 comes as bytes; such a model is refused when it is read.
    usable = (name for name in locations if isinstance(name, str) and name and "\0" not in name)
    return tuple(folder / name for name in sorted(usable))


def _place(tensor: onnx.TensorProto, folder: Path) -> tuple[Path, int, int]:
    where = f"tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    unknown = sorted(set(entries) - _KEYS)
    if unknown or len(entries) != len(tensor.external_data):
        raise ModelInvalid(
            f"external data with unknown or doubled keys {unknown or list(entries)}", where=where
        )
    needed = packed_bytes(tensor.data_type, element_count(tensor))
    offset = _number(entries.get("offset", "0"), "offset", where)
    length = _number(entries.get("length", str(needed)), "length", where)
    if length != needed:
        raise ModelInvalid(
            f"external data of {length} bytes for a shape that takes {needed}", where=where
        )
    return contained(folder, entries.get("location", ""), where), offset, length


def _number(text: str, what: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise ModelInvalid(f"{what} {text[:40]!r} of its external data is not a size", where=where)
    return int(text)


def contained(folder: Path, location: str, where: str) -> Path:
    """The file at a location, which has to be a plain file inside the folder.

    Raises:
        UnsafeInput: Absolute, upwards, or through a link.
        ModelInvalid: No location, or no file there.
    """
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        raise UnsafeInput(f"external data at an absolute path {location!r}", where=where)
    if ".." in posix.parts or ".." in windows.parts:
        raise UnsafeInput(f"external data outside the model's folder: {location!r}", where=where)
    if not posix.parts or "\0" in location:
        raise ModelInvalid(f"external data without a usable location: {location!r}", where=where)
    path = folder
    for part in posix.parts:
        path = path / part
        if path.is_symlink():
            raise UnsafeInput(
                f"external data through a symbolic link: {location!r}",
                where=where,
                hint="put the file itself beside the model",
            )
    try:
        info = path.stat()
    except OSError as error:
        raise ModelInvalid(f"external data file {location!r} is missing", where=where) from error
    if not stat.S_ISREG(info.st_mode):
        raise UnsafeInput(f"external data that is not a plain file: {location!r}", where=where)
    if info.st_nlink > 1:
        raise UnsafeInput(
            f"external data through a hard link: {location!r}",
            where=where,
            hint="put a copy of the file beside the model",
        )
    return path


def _read(name: str, path: Path, offset: int, length: int) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    where = f"tensor {name!r}"
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if offset + length > size:
                raise ModelInvalid(
                    f"external data file {path.name!r} has {size} bytes,"
                    f" {offset + length} are needed",
                    where=where,
                )
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise ModelInvalid(
            f"external data file {path.name!r} cannot be read: {error.strerror}", where=where
        ) from error
    if len(data) != length:
        raise ModelInvalid(f"external data file {path.name!r} is too short", where=where)
    return data
