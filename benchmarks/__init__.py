"""Measurements, side by side with peers, and their results."""

from mlx_zimage import linux as linux  # before MLX, which a script may import first

linux.keep_freed_memory()
