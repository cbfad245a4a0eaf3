"""Progress without a terminal: a line per phase and a sign of life now and then."""

from __future__ import annotations

import pytest

from edgecompress.cli.progress import HEARTBEAT_S, Heartbeat, progress_on_stderr


def test_heartbeat(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    beat = Heartbeat(lambda: now)
    beat("decomposing", 1, 20)
    beat("decomposing", 2, 20)
    now += HEARTBEAT_S
    beat("decomposing", 3, 20)
    beat("verifying", 0, 0)
    assert capsys.readouterr().err == "decomposing 1/20\ndecomposing 3/20\nverifying\n"


def test_names_in_a_phase_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    Heartbeat(lambda: 0.0)("::error::\x1b[2J\nx", 0, 0)
    assert capsys.readouterr().err == ": :error::[2J\n x\n".replace("\n x", "\nx")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on_stderr(quiet=True) as progress:
        progress("decomposing", 1, 2)
    assert capsys.readouterr().err == ""
