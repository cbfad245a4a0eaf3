"""Programs that some tests need, and that are no Python packages."""

from __future__ import annotations

import os
import shutil

import pytest

from edgecompress.hardware.rtl.bench import INSTALL


def need(*programs: str) -> None:
    """Skip the test where a program is missing; in CI, where they have to be there, fail it."""
    for program in programs:
        if shutil.which(program) is None:
            reason = f"{program} is not installed ({INSTALL[program]})"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
