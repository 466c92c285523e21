"""Made and golden sources of weights, by family."""
