"""Write a checkpoint in another precision: `python convert.py --help`."""

from mlx_zimage.cli import run

if __name__ == "__main__":
    run("convert")
