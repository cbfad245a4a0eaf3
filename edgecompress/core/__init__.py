"""The vocabulary of every room: standard library, NumPy, pydantic for files people write."""
