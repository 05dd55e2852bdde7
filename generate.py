"""Make a picture from a prompt: `python generate.py --help`."""

try:
    from mlx_zimage.cli import run

    if __name__ == "__main__":
        run("generate")
except KeyboardInterrupt:  # while the libraries were loading
    raise SystemExit(130) from None
