"""ONNX graphs run, and differentiated, by torch."""
