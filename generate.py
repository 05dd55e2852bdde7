"""Make a picture from a prompt: `python generate.py --help`."""

from mlx_zimage.cli import run

if __name__ == "__main__":
    run("generate")
