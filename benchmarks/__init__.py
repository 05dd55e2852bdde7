"""What measures, side by side with peers, and what was measured."""

from mlx_zimage import linux as linux  # before MLX, which a script may import first
