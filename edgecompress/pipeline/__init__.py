"""The use cases, one file a command."""
