"""ONNX graphs: read, find layers, rewrite, run, write."""
