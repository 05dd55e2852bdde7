"""Pixels, and files that remember how they were made."""
