"""Training with factors, activations and gradients of a few bits."""
