"""Layers without initial weights, and the numerics they share."""
