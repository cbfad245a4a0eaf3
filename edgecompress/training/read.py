"""PyTorch files as ONNX graphs.

A state dict is data; everything else in which PyTorch stores models is code when it is loaded,
and needs the user's word that the file is trusted.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from edgecompress.core.arrays import Shape
from edgecompress.core.errors import (
    ConfigurationInvalid,
    ModelInvalid,
    UnsafeInput,
    Unsupported,
    UsageError,
)
from edgecompress.training.archive import Contents, Kind, look_inside

try:
    import torch
    from safetensors.torch import load_file
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ConfigurationInvalid(
        "PyTorch files need torch, which is not installed",
        hint="pip install 'edgecompress[torch]'",
    ) from error

from edgecompress.training.export import export_module, export_program, export_script

TORCH_SUFFIXES = (".pt", ".pth", ".pt2", ".safetensors", ".bin", ".ckpt")
NESTED_KEYS = ("state_dict", "model_state_dict", "model")
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")
TRUST_HINT = "give --trust-input if you trust where it comes from, or export it to ONNX there"
LOAD_FAILURES = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ImportError,
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What torch raises on a damaged file, or on one whose classes are not here."""


def torch_to_onnx(
    path: Path,
    *,
    factory: str | None = None,
    trust_input: bool = False,
    input_shape: Shape | None = None,
) -> bytes:
    """A PyTorch file as an ONNX file, with an open batch axis where the network allows it.

    Args:
        path: State dict (``.pth``, ``.pt``, ``.safetensors``), exported program (``.pt2``),
            TorchScript archive, or pickled module.
        factory: ``module:function`` that builds the network of a state dict.
        trust_input: Allow files, and factories, to run code.
        input_shape: Of the input, batch axis included; not needed for an exported program.

    Returns:
        The content of the ONNX file; the same for the same input and versions.

    Raises:
        UnsafeInput: It could run code and is not trusted.
        Unsupported: A state dict without a factory, or a network that cannot be exported.
        ModelInvalid: Damaged, or the state dict does not fit the network.
        UsageError: The factory or the input shape is missing or wrong.
        ResourceLimit: The archive declares more than it could hold.
        InputOutputFailed: The file cannot be read.
    """
    contents = look_inside(path)
    _check_trust(path, contents, factory, trust_input)
    where = str(path)
    match contents.kind:
        case Kind.STATE_DICT | Kind.SAFETENSORS:
            module = _assemble(_read_state(path, contents.kind), factory, path)
        case Kind.MODULE:
            loaded = _load_pickle(path)
            if isinstance(loaded, torch.nn.Module):
                module = loaded
            else:
                module = _assemble(loaded, factory, path)
        case Kind.TORCHSCRIPT:
            return export_script(_load_script(path), _shape(input_shape, path), where=where)
        case Kind.EXPORTED:
            return export_program(_load_program(path), where=where)
    return export_module(module, _shape(input_shape, path), where=where)


def network_of(factory: str, *, trust_input: bool) -> torch.nn.Module:
    """The network that a user's function builds.

    Args:
        factory: ``module:function``.
        trust_input: The user trusts that code.

    Raises:
        UnsafeInput: It is not trusted.
        UsageError: It cannot be imported, fails, or gives something else.
    """
    if not trust_input:
        raise _untrusted_factory(factory)
    return _build(factory)


def fill_network(module: torch.nn.Module, path: Path, name: str) -> None:
    """Load the weights of a state dict into a network, in place; nothing in the file is run.

    Args:
        module: The network.
        path: State dict (``.pth``, ``.pt``, ``.safetensors``).
        name: Of the network, for messages.

    Raises:
        Unsupported: The file is of another kind.
        ModelInvalid: Damaged, or it does not fit the network.
        InputOutputFailed: The file cannot be read.
    """
    contents = look_inside(path)
    if contents.kind not in (Kind.STATE_DICT, Kind.SAFETENSORS):
        raise Unsupported(
            f"holds a {contents.kind.value}; training begins with a state dict",
            where=str(path),
            hint="save network.state_dict() where it was made",
        )
    _fill(module, _unwrap(_read_state(path, contents.kind), path), path, name)


def _untrusted_factory(factory: str) -> UnsafeInput:
    return UnsafeInput(
        f"--model {factory} imports and runs Python code",
        hint="give --trust-input if you trust that code",
    )


def _check_trust(path: Path, contents: Contents, factory: str | None, trusted: bool) -> None:
    if trusted:
        return
    where = str(path)
    match contents.kind:
        case Kind.MODULE:
            names = ", ".join(contents.globals[:3])
            raise UnsafeInput(
                f"a pickle that imports {names} when loaded can run any code",
                where=where,
                hint=f"save the state dict instead, or {TRUST_HINT}",
            )
        case Kind.TORCHSCRIPT | Kind.EXPORTED:
            article = "an" if contents.kind is Kind.EXPORTED else "a"
            raise UnsafeInput(
                f"{article} {contents.kind.value} can run any code when loaded",
                where=where,
                hint=TRUST_HINT,
            )
        case Kind.STATE_DICT | Kind.SAFETENSORS:
            if factory is not None:
                raise _untrusted_factory(factory)


def _shape(shape: Shape | None, path: Path) -> Shape:
    if shape is None:
        raise UsageError(
            "the shape of the input is not in the file",
            where=str(path),
            hint="give it with the batch first: --input-shape input=1,3,32,32",
        )
    if len(shape) < 1 or min(shape) < 1:
        raise UsageError(f"{shape} is not the shape of an input", where="--input-shape")
    return shape


def _build(factory: str) -> torch.nn.Module:
    """The network that a user's function makes."""
    module_name, colon, function = factory.partition(":")
    if not colon or not module_name or not function:
        raise UsageError(f"{factory!r} is not of the form module:function", where="--model")
    with _current_folder():
        try:
            make = getattr(importlib.import_module(module_name), function)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"cannot import {factory}: {error}",
                where="--model",
                hint="the module is looked up in the current folder and in PYTHONPATH",
            ) from error
        except Exception as error:  # the user's code may raise anything; interrupts pass
            raise _failed(f"importing {module_name}", error) from error
        try:
            network = make()
        except Exception as error:  # as above: nothing is passed over, all of it is told
            raise _failed(f"{factory}()", error) from error
    if not isinstance(network, torch.nn.Module):
        raise UsageError(
            f"{factory} gives {type(network).__name__}, not a torch.nn.Module", where="--model"
        )
    return network


def _failed(what: str, error: Exception) -> UsageError:
    return UsageError(
        f"{what} raises {type(error).__name__}: {_first_line(error)}",
        where="--model",
        hint="it has to give the network when it is called without arguments; --debug shows where",
    )


@contextmanager
def _current_folder() -> Iterator[None]:
    """Modules of the current folder can be imported; an installed command would not see them."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _read_state(path: Path, kind: Kind) -> object:
    """What a file of tensors holds; nothing in it is run."""
    try:
        if kind is Kind.SAFETENSORS:
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *LOAD_FAILURES) as error:
        raise ModelInvalid(f"cannot be read: {_first_line(error)}", where=str(path)) from error


def _assemble(content: object, factory: str | None, path: Path) -> torch.nn.Module:
    """The network of a state dict, with its weights."""
    state = _unwrap(content, path)
    if factory is None:
        raise Unsupported(
            "a state dict has weights but no network",
            where=str(path),
            hint="say what builds the network: --model module:function --trust-input",
        )
    module = _build(factory)
    _fill(module, state, path, factory)
    return module


def _unwrap(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor, out of the wrappers that training scripts put around it."""
    for key in NESTED_KEYS:
        inner = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping):
            content = inner
    if not isinstance(content, Mapping) or not content:
        raise ModelInvalid(f"holds {type(content).__name__}, no state dict", where=str(path))
    others = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        listed = ", ".join(others[:5])
        raise ModelInvalid(f"holds no state dict: {listed} are not tensors", where=str(path))
    return {str(key): value for key, value in content.items()}


def _fill(
    module: torch.nn.Module, state: dict[str, torch.Tensor], path: Path, factory: str
) -> None:
    """Load the weights into the network, in place."""
    wanted = set(module.state_dict())
    for prefix in WRAPPER_PREFIXES:
        if not wanted & set(state) and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        detail = lines[0] if lines else _first_line(error)
        message = f"the state dict does not fit {factory}: {detail}"
        raise ModelInvalid(message, where=str(path)) from error
    problems = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if problems:
        raise ModelInvalid(
            f"the state dict does not fit {factory}: {' and '.join(problems)}", where=str(path)
        )


def _load_pickle(path: Path) -> object:
    """A pickled module; only after the user said that the file is trusted."""
    try:
        with _current_folder():
            return torch.load(path, map_location="cpu", weights_only=False)
    except LOAD_FAILURES as error:
        raise ModelInvalid(
            f"cannot be loaded: {_first_line(error)}",
            where=str(path),
            hint="its classes must be importable from here",
        ) from error


def _load_script(path: Path) -> torch.jit.ScriptModule:
    """A TorchScript archive; only after the user said that the file is trusted."""
    try:
        return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call, no-any-return]
    except LOAD_FAILURES as error:
        raise ModelInvalid(f"cannot be loaded: {_first_line(error)}", where=str(path)) from error


def _load_program(path: Path) -> torch.export.ExportedProgram:
    """An exported program; only after the user said that the file is trusted."""
    try:
        return torch.export.load(path)
    except LOAD_FAILURES as error:
        raise ModelInvalid(f"cannot be loaded: {_first_line(error)}", where=str(path)) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
