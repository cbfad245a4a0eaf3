"""What a full folder for temporary files looks like to the user."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from edgecompress.core.errors import InputOutputFailed
from edgecompress.core.scratch import temporary_folder
from edgecompress.graph import save


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_temporary_folder_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(save.os, "fsync", full)
    with pytest.raises(InputOutputFailed) as failure, temporary_folder() as folder:
        save.write_atomically(folder / "model.onnx", b"12")
    assert failure.value.where == tempfile.gettempdir()
    assert "full" in failure.value.message
    assert "TMPDIR" in failure.value.hint
    assert not folder.exists()


def test_a_full_disk_elsewhere_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(save.os, "fsync", full)
    output = tmp_path / "small.onnx"
    with pytest.raises(InputOutputFailed) as failure, temporary_folder():
        save.write_atomically(output, b"12")
    assert failure.value.where == str(output)
    assert list(tmp_path.iterdir()) == []


def test_other_failures_pass_through() -> None:
    with pytest.raises(FileNotFoundError), temporary_folder() as folder:
        (folder / "missing").read_bytes()
