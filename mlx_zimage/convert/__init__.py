"""Checkpoints written in another precision."""
