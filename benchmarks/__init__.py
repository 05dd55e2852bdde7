"""What measures, side by side with peers, and what was measured."""

from mlx_zimage import blas as blas  # before MLX, which a script may import first
