"""Compare a folder of models and data sets with data.toml.

    python benchmarks/verify_data.py [FOLDER]     default: $EDGECOMPRESS_DATA

Ends with 1 where a file is missing or another than the one that the figures were measured on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tomllib
from pathlib import Path

ORIGINS = Path(__file__).with_name("data.toml")


def expected() -> dict[str, str]:
    """Path in the folder -> sha256."""
    with ORIGINS.open("rb") as file:
        return {entry["path"]: entry["sha256"] for entry in tomllib.load(file)["file"]}


def differences(folder: Path) -> list[str]:
    """One line for each file that is missing or different."""
    lines = []
    for name, sha256 in expected().items():
        path = folder / name
        if not path.is_file():
            lines.append(f"missing: {name}")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            lines.append(f"different: {name}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("EDGECOMPRESS_DATA")
    parser.add_argument("folder", type=Path, nargs="?", default=default)
    folder = parser.parse_args().folder
    if folder is None:
        parser.error("give a folder, or set EDGECOMPRESS_DATA")
    if lines := differences(Path(folder)):
        sys.exit("\n".join(lines))
    print(f"{len(expected())} files as expected")


if __name__ == "__main__":
    main()
