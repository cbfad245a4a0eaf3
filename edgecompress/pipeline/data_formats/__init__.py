"""Readers of sample files, one format a file; ``pipeline/data.py`` picks one and fits the model."""
