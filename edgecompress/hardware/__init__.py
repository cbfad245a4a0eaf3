"""Accelerator cost models and target descriptions."""
