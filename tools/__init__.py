"""What makes and measures: the demo's training, the gallery, recipes and conversions."""

import mlx_zimage.linux  # noqa: F401  # before a tool imports MLX
