"""Programs around the package: the demo's training, the gallery, recipes and conversions."""

from mlx_zimage import linux as linux  # before MLX, which a tool may import first

linux.keep_freed_memory()
