"""ONNX files from PyTorch modules, TorchScript and exported programs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import onnx
import torch

from edgecompress.core.arrays import Array, Shape
from edgecompress.core.errors import Unsupported
from edgecompress.core.scratch import temporary_folder

BATCH = "batch"
OPSET = 20
LEGACY_OPSET = 17
EXPORT_FAILURES = (
    torch.onnx.errors.OnnxExporterError,
    torch._dynamo.exc.TorchDynamoException,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the exporters and the user's own forward raise; none of it is ours to judge."""


def export_module(
    module: torch.nn.Module, shape: Shape, *, where: str, dtype: torch.dtype = torch.float32
) -> bytes:
    """A module as an ONNX file, with an open batch axis if the network allows it.

    Args:
        module: Put into evaluation mode, in place.
        shape: Of its input, batch axis included.
        where: The file, for messages.
        dtype: Of its input: whole numbers for tokens.

    Raises:
        Unsupported: The network does not run on this input, or cannot be exported.
    """
    module.eval()
    example = _example(module, shape, where, dtype)
    failures: list[str] = []
    batch = ({0: torch.export.Dim(BATCH)},) if len(shape) > 1 else None
    for dynamic in (batch, None) if batch else (None,):
        try:
            return _export(
                module,
                (example if dynamic is None else _two_rows(example),),
                dynamo=True,
                dynamic_shapes=dynamic,
                opset_version=OPSET,
                input_names=["input"],
            )
        except EXPORT_FAILURES as error:
            failures.append(_first_line(error))
    raise Unsupported(f"the network cannot be exported to ONNX: {failures[-1]}", where=where)


def export_trained(module: torch.nn.Module, examples: Mapping[str, Array], *, where: str) -> bytes:
    """A network with any inputs as an ONNX file, with an open batch axis if it allows it.

    Args:
        module: On the CPU; put into evaluation mode, in place.
        examples: A batch of each input, by the name that it gets, in the network's order.
        where: What it is, for messages.

    Raises:
        Unsupported: It cannot be exported.
    """
    module.eval()
    failures: list[str] = []
    batch = torch.export.Dim(BATCH)
    for dynamic in (tuple({0: batch} for _ in examples), None):
        rows = 2 if dynamic else 1
        tensors = tuple(torch.from_numpy(values[:rows].copy()) for values in examples.values())
        try:
            return _export(
                module,
                tensors,
                dynamo=True,
                dynamic_shapes=dynamic,
                opset_version=OPSET,
                input_names=list(examples),
                output_names=["output"],
            )
        except EXPORT_FAILURES as error:
            failures.append(_first_line(error))
    raise Unsupported(f"the network cannot be exported to ONNX: {failures[-1]}", where=where)


def export_script(module: torch.jit.ScriptModule, shape: Shape, *, where: str) -> bytes:
    """A TorchScript module as an ONNX file, by the exporter that understands it.

    Raises:
        Unsupported: The network does not run on this input, or cannot be exported.
    """
    module.eval()
    example = _example(module, shape, where)
    try:
        return _export(
            module,
            (example,),
            dynamo=False,
            dynamic_axes={"input": {0: BATCH}} if len(shape) > 1 else None,
            opset_version=LEGACY_OPSET,
            input_names=["input"],
        )
    except EXPORT_FAILURES as error:
        message = f"the network cannot be exported to ONNX: {_first_line(error)}"
        raise Unsupported(message, where=where) from error


def export_program(program: torch.export.ExportedProgram, *, where: str) -> bytes:
    """An exported program as an ONNX file; its own open axes stay open.

    Raises:
        Unsupported: It cannot be exported.
    """
    try:
        return _export(program, (), dynamo=True, opset_version=OPSET)
    except EXPORT_FAILURES as error:
        message = f"the program cannot be exported to ONNX: {_first_line(error)}"
        raise Unsupported(message, where=where) from error


def _example(
    module: torch.nn.Module, shape: Shape, where: str, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """An input that the network runs on; the exporters' own messages are hard to read."""
    example = torch.zeros(shape, dtype=dtype)
    try:
        with torch.no_grad():
            module(example)
    except EXPORT_FAILURES as error:
        raise Unsupported(
            f"the network does not run on an input of shape {shape}: {_first_line(error)}",
            where=where,
            hint="check --input-shape; a network with several inputs is exported where it was made",
        ) from error
    return example


def _two_rows(example: torch.Tensor) -> torch.Tensor:
    """At least two rows: torch.export would take a batch of one for a fixed one."""
    return example if example.shape[0] > 1 else torch.cat([example, example])


def _export(target: object, arguments: tuple[torch.Tensor, ...], **options: object) -> bytes:
    with temporary_folder() as folder, _quiet():
        file = folder / "model.onnx"
        torch.onnx.export(target, arguments, file, external_data=False, verbose=False, **options)  # type: ignore[arg-type]
        proto = onnx.load(file)
    _strip(proto)
    return bytes(proto.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print and warn; what matters comes back as an error."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip(proto: onnx.ModelProto) -> None:
    """Remove stack traces and doc strings, which hold paths of this machine, in place."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        graph.doc_string = ""
        del graph.metadata_props[:]
        values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
        for item in (*values, *graph.node):
            item.doc_string = ""
            del item.metadata_props[:]
        for node in graph.node:
            for attribute in node.attribute:
                graphs += [attribute.g] if attribute.HasField("g") else []
                graphs += attribute.graphs


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
