"""Ranks found while a network trains."""
