"""What each recipe weighs, from a checkpoint's configs alone.

    python -m tools.recipes FOLDER

FOLDER holds transformer/, text_encoder/ and vae/ with their config.json; no weights are needed.
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx

from mlx_zimage.bench.synthetic import shapes
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.quantization.recipe import BITS, MODES, Quantization
from mlx_zimage.weights.sizes import outputs
from mlx_zimage.weights.tensor import Tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    components = {name: of_configs(name, folder) for name in COMPONENTS}
    names = ("transformer", "text_encoder", "vae")
    print("| | transformer | text encoder | VAE | all | the largest component |")
    print("|---|---|---|---|---|---|")
    choices = (None, *reversed(BITS), *MODES)
    for choice in choices:
        sizes = [_size(name, components[name], choice) / 1e9 for name in names]
        cells = [f"{size:.2f} GB" for size in (*sizes, sum(sizes), max(sizes))]
        name = "bfloat16" if choice is None else f"`--q {choice}`"
        print(f"| {name} | {' | '.join(cells)} |")


def _size(name: str, tensors: Tensors, choice: int | str | None) -> int:
    packings = {}
    if choice is not None:
        packings = dict(Quantization.parse(choice).choose(tensors, COMPONENTS[name].unquantized))
    return sum(output.size for output in outputs(tensors, packings, mx.bfloat16))


def of_configs(name: str, folder: Path) -> Tensors:
    """Return a component's tensors as its config.json shapes them, without numbers."""
    file = folder / name / "config.json"
    data = json.loads(file.read_text("utf-8"))
    return shapes(name, COMPONENTS[name].read_config(data, str(file)))


if __name__ == "__main__":
    main()
