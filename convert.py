"""Write a checkpoint in another precision: `python convert.py --help`."""

try:
    from mlx_zimage.cli import run

    if __name__ == "__main__":
        run("convert")
except KeyboardInterrupt:  # while the libraries were loading
    raise SystemExit(130) from None
