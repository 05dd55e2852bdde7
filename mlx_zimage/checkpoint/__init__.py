"""A checkpoint: its components, opened, checked and assembled into modules."""
