"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_MODELS = ROOT / "sample_models"

hypothesis.settings.register_profile(
    "slice", derandomize=True, deadline=None, max_examples=25, print_blob=True
)
hypothesis.settings.register_profile("full", deadline=None, max_examples=400, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="the long suites whole, not by a seeded slice",
    )


def pytest_configure(config: pytest.Config) -> None:
    full = config.getoption("--full")
    hypothesis.settings.load_profile("full" if full else "slice")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the long suites run whole."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real models and data sets that ``EDGECOMPRESS_DATA`` names.

    Without it the test is skipped; in CI, where it has to be there, it fails.
    """
    value = os.environ.get("EDGECOMPRESS_DATA", "")
    folder = Path(value)
    if value and (folder / "models").is_dir() and (folder / "datasets").is_dir():
        return folder
    reason = (
        f"EDGECOMPRESS_DATA is {value!r}, no folder with models/ and datasets/"
        if value
        else "EDGECOMPRESS_DATA is not set (benchmarks/README.md)"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def sample_models() -> Path:
    """The folder of the small networks that come with the project."""
    return SAMPLE_MODELS
