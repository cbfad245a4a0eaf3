"""A wheel, built and installed where the sources are not, does what the checkout does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "edgecompress")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources without network access."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / "src" / name, ignore=ignored)
        else:
            (folder / "src").mkdir(exist_ok=True)
            shutil.copy(source, folder / "src" / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(folder / "src")], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def run(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, blind to the checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )


def test_wheel_holds_every_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    package = ROOT / "edgecompress"
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= packed
    assert not [name for name in packed if name.startswith(("tests", "benchmarks", "docs"))]


def install(wheel: Path, folder: Path, *, with_dependencies: bool) -> Path:
    """Install the wheel in a new virtual environment; its Python.

    Without dependencies those of this environment are used; the package itself is the wheel's.
    """
    run([sys.executable, "-m", "venv", "--without-pip", "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    if with_dependencies:
        run([*pip, "--constraint", ROOT / "constraints.txt", wheel], folder)
        return python
    run([*pip, "--no-deps", wheel], folder)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # Plain paths, not site directories: an editable install of the checkout stays out of sight.
    others = sorted({path for path in sys.path if path.endswith("site-packages")})
    (site / "dependencies.pth").write_text("\n".join(others), encoding="utf-8")
    return python


@pytest.mark.slow
def test_wheel_works_elsewhere(
    wheel: Path, sample_models: Path, tmp_path: Path, full: bool
) -> None:
    python = install(wheel, tmp_path, with_dependencies=full)
    where = run([python, "-c", "import edgecompress; print(edgecompress.__file__)"], tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(tmp_path)

    program = python.with_name("edgecompress")
    assert "compress" in run([program, "--help"], tmp_path).stdout
    shutil.copy(sample_models / "digits_dscnn.onnx", tmp_path)
    line = ["quantize", "digits_dscnn.onnx", "--output", "small.onnx", "--bits", "4"]
    run([program, *line], tmp_path)
    small = (tmp_path / "small.onnx").stat().st_size
    assert small < (tmp_path / "digits_dscnn.onnx").stat().st_size / 2
