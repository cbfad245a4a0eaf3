"""A lid on memory while a graph that may explode is run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

EXTRA_BYTES = 4 << 30
"""How much more memory a run on made-up inputs may take."""


@contextlib.contextmanager
def memory_limit() -> Iterator[None]:
    """Let this process grow by `EXTRA_BYTES` only; does nothing where the system cannot.

    Allocations above it fail with an exception instead of taking the machine down.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = pages * resource.getpagesize() + EXTRA_BYTES
        ceilings = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *ceilings]), hard))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
