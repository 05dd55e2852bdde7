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
from mlx_zimage.quantization.mixed import KINDS, Target, allocate, candidates, estimate
from mlx_zimage.quantization.recipe import BITS, MODES, Quantization
from mlx_zimage.weights.sizes import outputs
from mlx_zimage.weights.tensor import Tensors

SIZES = ("4.0GB", "3.3GB", "3.0GB", "2.5GB")


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
    _mixed(components["transformer"])


def _mixed(tensors: Tensors) -> None:
    """What mixed bits give to each kind of layer, by the demo's errors: mean bits."""
    quantization = Quantization.parse(4)
    usual = quantization.choose(tensors, COMPONENTS["transformer"].unquantized)
    layers = {path: tensors[f"{path}.weight"] for path in usual}
    others = {key: t for key, t in tensors.items() if key.removesuffix(".weight") not in layers}
    rest = sum(output.size for output in outputs(others, {}, mx.bfloat16))
    kinds = ("refiner", *KINDS)
    print(f"\n| transformer | mean bits | {' | '.join(kinds)} |")
    print("|---" * (len(kinds) + 2) + "|")
    count = sum(tensor.count for tensor in layers.values())
    for size in SIZES:
        room = Target.parse(size).room(count, rest)
        options = estimate(layers, candidates(8 * room / count, 64, rotate=False))
        chosen = allocate(options, room)
        means = []
        for kind in kinds:
            bits = [
                p.bits
                for path, p in chosen.items()
                if ("refiner" in path) == (kind == "refiner")
                and (kind == "refiner" or kind in path.split("."))
            ]
            means.append(f"{sum(bits) / len(bits):.1f}")
        print(f"| `--mixed {size}` | {8 * room / count:.2f} | {' | '.join(means)} |")


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
