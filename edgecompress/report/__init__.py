"""Renderers of reports, one a file; they round and scale, nobody else does."""
