"""Quantization: the recipe that selects layers, and the search for their scales."""
