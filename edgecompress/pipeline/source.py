"""The model file that a command was given, as ONNX."""

from __future__ import annotations

from pathlib import Path

from edgecompress.core.arrays import Shape

TORCH_SUFFIXES = (".pt", ".pth", ".pt2", ".safetensors", ".bin", ".ckpt")
"""Files that are read with PyTorch; everything else is taken for ONNX."""


def as_onnx(
    path: Path,
    folder: Path,
    *,
    factory: str | None = None,
    trust_input: bool = False,
    input_shape: Shape | None = None,
) -> Path:
    """The ONNX file of a model: the file itself, or an export of a PyTorch file.

    Args:
        path: What the user named.
        folder: Where an export may be written.
        factory: ``module:function`` that builds the network of a state dict.
        trust_input: Allow inputs that can run code.
        input_shape: Of the network's input; needed where the file does not say.

    Raises:
        EdgeCompressError: As `torch_to_onnx`; ConfigurationInvalid if PyTorch is not installed.
    """
    if path.suffix.lower() not in TORCH_SUFFIXES:
        return path
    from edgecompress.training.read import torch_to_onnx

    proto = torch_to_onnx(path, factory=factory, trust_input=trust_input, input_shape=input_shape)
    exported = folder / f"{path.stem}.onnx"
    exported.write_bytes(proto)
    return exported
