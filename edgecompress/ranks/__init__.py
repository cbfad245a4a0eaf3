"""Rank rules, one a file."""
