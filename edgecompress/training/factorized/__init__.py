"""Weights that exist as tensor factors only; one format a file."""
