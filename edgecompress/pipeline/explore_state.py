"""The state file of an exploration: what has been priced, so that a rerun goes on from there.

A line of JSON each: first what the exploration is, then one a chunk of points as they are done:
those of the grid in their order, those beside it with their values.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecompress.core.errors import ConfigurationInvalid, InputOutputFailed
from edgecompress.core.exploration import Value

_FORMAT = "edgecompress.exploration-state/1"

Row = list[float | None]
Values = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Points that were looked at together.

    Attributes:
        rows: One per priced point: its index, resources, seconds and energy; see `explore`.
        dropped: Reason -> points.
    """

    rows: list[Row]
    dropped: dict[str, int] = field(default_factory=dict)


def exploration_key(facts: Mapping[str, Any]) -> str:
    """A hash of everything that the prices depend on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class State:
    """Chunks that are done, on file or, without a path, nowhere.

    Args:
        path: The file; made if it is not there.
        key: Of the exploration.

    Attributes:
        chunks: Of the grid.
        beside: Points beside the grid by their values: the row, or why there is none.

    Raises:
        ConfigurationInvalid: The file is of another exploration, or no state file.
        InputOutputFailed: It cannot be read or written.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path = path
        self.chunks: list[Chunk] = []
        self.beside: dict[Values, Row | str] = {}
        if path is None:
            return
        try:
            if path.exists():
                self._read(path, key)
            else:
                path.write_text(json.dumps({"format": _FORMAT, "key": key}) + "\n")
        except OSError as error:
            raise _failed(path, error) from error

    def add(self, chunk: Chunk) -> None:
        """Take note of a chunk, on the disk before this returns."""
        self.chunks.append(chunk)
        self._append({"rows": chunk.rows, "dropped": chunk.dropped})

    def add_beside(self, points: Sequence[Values], found: Sequence[Row | str]) -> None:
        """Take note of points beside the grid, on the disk before this returns."""
        self.beside.update(zip(points, found, strict=True))
        self._append({"points": points, "found": found})

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        line = json.dumps(record) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _failed(self._path, error) from error

    def _read(self, path: Path, key: str) -> None:
        """Chunks of the file; a last line that was cut off is taken away."""
        head, *lines = path.read_bytes().split(b"\n")
        known = _parsed(head)
        if known.get("format") != _FORMAT:
            raise ConfigurationInvalid("not the state of an exploration", where=str(path))
        if known.get("key") != key:
            raise ConfigurationInvalid(
                "the state of another exploration: model, target, ranges, limits, seed or version "
                "differ",
                where=str(path),
                hint="name another file, or remove this one",
            )
        whole = len(head) + 1
        for line in lines[:-1]:
            found = _parsed(line)
            if found.keys() == {"rows", "dropped"}:
                self.chunks.append(Chunk(found["rows"], found["dropped"]))
            elif found.keys() == {"points", "found"}:
                self.beside.update(zip(map(tuple, found["points"]), found["found"], strict=True))
            else:
                break
            whole += len(line) + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)


def _parsed(line: bytes) -> dict[str, Any]:
    """The object of a line; empty if it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _failed(path: Path, error: OSError) -> InputOutputFailed:
    reason = error.strerror or str(error)
    return InputOutputFailed(f"the state cannot be kept: {reason}", where=str(path))
