"""The model file that a command was given, as ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import EdgeCompressError
from edgecompress.core.report import FileFact
from edgecompress.core.scratch import temporary_folder
from edgecompress.graph.hashing import file_fact
from edgecompress.graph.model import Model, load_model

TORCH_SUFFIXES = (".pt", ".pth", ".pt2", ".safetensors", ".bin", ".ckpt")
"""Files that are read with PyTorch; everything else is taken for ONNX."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchReading:
    """What it takes to read PyTorch files; ONNX files need none of it.

    Attributes:
        factory: ``module:function`` that builds the network of a state dict.
        trust_input: Allow inputs that can run code.
        input_shape: Of the network's input; needed where the file does not say.
    """

    factory: str | None = None
    trust_input: bool = False
    input_shape: Shape | None = None


def torch_reading(
    input_shapes: Mapping[str, Shape] | None, *, factory: str | None, trust_input: bool
) -> TorchReading:
    """The options of a command; the network has one input, whatever it is called."""
    shapes = list((input_shapes or {}).values())
    return TorchReading(
        factory=factory, trust_input=trust_input, input_shape=shapes[0] if shapes else None
    )


@contextmanager
def as_onnx(path: Path, reading: TorchReading) -> Iterator[Path]:
    """The ONNX file of a model: the file itself, or an export of a PyTorch file.

    An export lives as long as the context; errors that are about it name the user's file.

    Args:
        path: What the user named.
        reading: How to read it if it is a PyTorch file.

    Raises:
        EdgeCompressError: As `torch_to_onnx`; ConfigurationInvalid if PyTorch is not installed.
    """
    if path.suffix.lower() not in TORCH_SUFFIXES:
        yield path
        return
    from edgecompress.graph.save import write_atomically
    from edgecompress.training.read import torch_to_onnx

    with temporary_folder() as folder:
        exported = folder / f"{path.stem}.onnx"
        content = torch_to_onnx(
            path,
            factory=reading.factory,
            trust_input=reading.trust_input,
            input_shape=reading.input_shape,
        )
        write_atomically(exported, content)
        try:
            yield exported
        except EdgeCompressError as error:
            error.where = error.where.replace(str(exported), str(path))
            raise


def named_file(path: Path, source: Path, read: FileFact) -> FileFact:
    """The file that the user named, external data included.

    Args:
        path: What the user named.
        source: The ONNX file that `as_onnx` gave for it.
        read: What was read from ``source``.
    """
    return read if source == path else file_fact(path)


@contextmanager
def as_written(
    path: str | Path, reading: TorchReading, input_shapes: Mapping[str, Shape]
) -> Iterator[tuple[Model, FileFact]]:
    """A model as its file has it, and the file that the user named."""
    with as_onnx(Path(path), reading) as source:
        model = load_model(source, normalize=False, input_shapes=input_shapes)
        yield model, named_file(Path(path), source, model.file)
