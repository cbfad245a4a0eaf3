"""The log and the warnings of libraries: silent, unless ``--debug`` asks for them."""

from __future__ import annotations

import logging
import warnings

from edgecompress.cli.streams import say


class _Stderr(logging.Handler):
    """Records as lines on stderr, names in them made harmless."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.name}: {record.getMessage()}")


def set_up_logs(*, debug: bool) -> None:
    """Route what libraries say: to stderr with ``debug``, else nowhere."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Stderr | logging.NullHandler) for handler in root.handlers):
        root.addHandler(_Stderr() if debug else logging.NullHandler())
    root.setLevel(logging.INFO if debug else logging.CRITICAL)
    logging.captureWarnings(True)
    if not debug:
        warnings.simplefilter("ignore")
