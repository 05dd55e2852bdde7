"""Write a checkpoint in another precision: `python convert.py --help`."""

from mlx_zimage_cli import main

if __name__ == "__main__":
    main("convert", "verify")
