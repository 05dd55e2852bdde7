"""Make pictures from a prompt: `python generate.py --help`."""

from mlx_zimage_cli import main

if __name__ == "__main__":
    main("generate")
