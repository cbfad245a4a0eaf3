"""Files that a run is about to write, refused before the work where they cannot be."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from edgecompress.core.errors import InputOutputFailed
from edgecompress.pipeline.data_formats.idx import find_labels

STATE_SCHEMA = b"edgecompress.training-state/1"
"""In every checkpoint; a test compares it with what the training writes."""

STATE_START_BYTES = 4096
"""The schema is the first entry of a checkpoint. Source: a choice, well behind that entry."""


def check_output(path: Path, *, inputs: Iterable[str | Path | None], force: bool) -> None:
    """Refuse an output that cannot be written, or that is a file which the run reads.

    Args:
        path: To be written.
        inputs: What is read: files, folders, ``random:0`` and the like, None. The labels beside
            an IDX file of images count as well.
        force: An output that exists may be overwritten, if it is no input.

    Raises:
        InputOutputFailed: With the reason.
    """
    if not path.parent.is_dir():
        raise InputOutputFailed("the folder does not exist", where=str(path.parent))
    if not os.access(path.parent, os.W_OK):
        raise InputOutputFailed("the folder cannot be written", where=str(path.parent))
    if path.is_dir():
        raise InputOutputFailed("the output is a folder", where=str(path))
    if not path.exists():
        return
    if any(path.samefile(read) for read in files_read(inputs)):
        raise InputOutputFailed(
            "the output is the input, which is never overwritten", where=str(path)
        )
    if not force:
        raise InputOutputFailed("the output exists", where=str(path), hint="--force overwrites it")


def files_read(inputs: Iterable[str | Path | None]) -> tuple[Path, ...]:
    """Those of the inputs that are there, with the files of labels that belong to them."""
    found = [Path(given) for given in inputs if given is not None and Path(given).exists()]
    labels = [find_labels(path) for path in found if path.is_file()]
    return (*found, *(path for path in labels if path is not None))


def external_data(
    models: Iterable[str | Path | None], *, written: Iterable[str | Path | None]
) -> tuple[Path, ...]:
    """Files that hold tensors of ONNX models, which no run overwrites.

    Args:
        models: That are read. PyTorch files have all they need inside.
        written: Files to be written; models are only opened if one of these is there already, and
            is no model itself: that is refused without a look inside.

    Raises:
        InputOutputFailed, ModelInvalid, ResourceLimit: A model cannot be read.
    """
    paths = [Path(model) for model in models if model is not None]
    there = [Path(path) for path in written if path is not None and Path(path).exists()]
    own = any(path.samefile(model) for path in there for model in paths if model.exists())
    if own or not there:
        return ()
    from edgecompress.graph.external import named_files
    from edgecompress.graph.preflight import read_proto
    from edgecompress.pipeline.source import TORCH_SUFFIXES

    return tuple(
        file
        for path in paths
        if path.suffix.lower() not in TORCH_SUFFIXES
        for file in named_files(read_proto(path)[0], path.parent)
    )


def check_checkpoint(
    path: Path, *, others: Iterable[str | Path | None], resume: bool, force: bool
) -> None:
    """Refuse a checkpoint that would take the place of something else.

    Raises:
        InputOutputFailed: It is a file of this run, no checkpoint, or one of another run that
            nobody said may go.
    """
    if not path.exists():
        return
    if any(path.samefile(other) for other in files_read(others)):
        raise InputOutputFailed("would overwrite another file of this run", where=str(path))
    if not _is_checkpoint(path):
        raise InputOutputFailed(
            "is no checkpoint, and is not overwritten",
            where=str(path),
            hint="give --checkpoint another name",
        )
    if not (resume or force):
        raise InputOutputFailed(
            "the checkpoint exists",
            where=str(path),
            hint="--resume goes on from it, --force overwrites it",
        )


def _is_checkpoint(path: Path) -> bool:
    """Whether it is what `training.checkpoint` writes: a zip whose pickle begins with the schema.

    Nothing is unpickled.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                return False
            with archive.open(names[0]) as file:
                return STATE_SCHEMA in file.read(STATE_START_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, EOFError):
        return False
    except OSError as error:
        raise InputOutputFailed(f"cannot be read: {error.strerror}", where=str(path)) from error
