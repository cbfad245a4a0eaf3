"""The command line. Importing it, and asking for help, loads nothing but click."""

from edgecompress.cli.entry import main

__all__ = ["main"]
