"""The machinery under every loss: validation, the rules of differentiation, sums and means."""
