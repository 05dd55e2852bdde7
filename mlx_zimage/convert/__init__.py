"""Checkpoints written in another precision: planned, published, verified, kept as copies."""
