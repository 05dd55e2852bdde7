"""Measurements of Z-Image on this machine, with a model's weights or random ones."""
