"""Accelerator families, one a file."""
