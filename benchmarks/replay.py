"""Compare what two revisions write for the sample models, byte for byte.

    python benchmarks/replay.py --base REVISION      (make replay BASE=REVISION)

Runs `compress`, `decompose` and `quantize` of the working tree and of the base on every sample
model, in this environment, and compares graphs, plans and reports. Ends with 1 when a file
differs: expected for a change of behaviour, never for a refactoring.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "sample_models"
MODELS = ("digits_cnn", "digits_dscnn", "digits_transformer")
DATA = ("--data", "digits_calibration.npz")
RUNS: dict[str, tuple[str, ...]] = {
    "compress": ("compress", *DATA, "--bits", "2", "--target", "systolic-ws-32"),
    "decompose": ("decompose", *DATA),
    "decompose_free": ("decompose", "--energy", "0.9"),
    "quantize": ("quantize", *DATA, "--bits", "ternary"),
    "quantize_free": ("quantize", "--bits", "4"),
    "quantize_int8": ("quantize", *DATA, "--bits", "4", "--activations", "8"),
}
ENTRY = "import sys; from edgecompress.cli import main; sys.exit(main())"


def run_all(tree: Path, folder: Path) -> None:
    """Every run with the package of a tree; inputs and outputs in a folder, by relative paths.

    A run that fails leaves its exit code and its message, which are compared like a report.
    """
    for name in ("digits_calibration.npz", *(f"{model}.onnx" for model in MODELS)):
        shutil.copy(SAMPLES / name, folder / name)
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }
    for model in MODELS:
        for label, (command, *options) in RUNS.items():
            output = f"{model}.{label}.onnx"
            line = [command, f"{model}.onnx", "--output", output, *options]
            line += ["--report", f"{output}.json", "--report", f"{output}.md"]
            done = subprocess.run(
                [sys.executable, "-c", ENTRY, *line],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                message = f"{done.returncode}\n{done.stderr}"
                (folder / f"{model}.{label}.failed").write_text(message, encoding="utf-8")
            print(f"{tree.name}: {' '.join(line)}: {done.returncode}", file=sys.stderr)


def differences(base: Path, tree: Path) -> list[str]:
    """One line for each file that only one folder has, or that differs."""
    names = {f.relative_to(d) for d in (base, tree) for f in d.rglob("*") if f.is_file()}
    lines = []
    for name in sorted(names):
        if not (base / name).exists() or not (tree / name).exists():
            lines.append(f"only in {'tree' if (tree / name).exists() else 'base'}: {name}")
        elif not filecmp.cmp(base / name, tree / name, shallow=False):
            lines.append(f"differs: {name}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="HEAD", help="a revision; default HEAD")
    base = parser.parse_args().base
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worktree = folder / "base"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(worktree), base], check=True)
        try:
            for label, source in (("of_base", worktree), ("of_tree", ROOT)):
                (folder / label).mkdir()
                run_all(source, folder / label)
        finally:
            subprocess.run([*git, "remove", "--force", str(worktree)], check=True)
        lines = differences(folder / "of_base", folder / "of_tree")
        compared = len(list((folder / "of_tree").iterdir()))
    if lines:
        sys.exit("\n".join(lines))
    print(f"{compared} files, no difference")


if __name__ == "__main__":
    main()
