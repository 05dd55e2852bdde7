"""What each recipe weighs, from a checkpoint's configs alone.

    python -m tools.recipes FOLDER

FOLDER holds transformer/, text_encoder/ and vae/ with their config.json; no weights are needed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn

from mlx_zimage.bench.synthetic import shapes
from mlx_zimage.convert.write import outputs
from mlx_zimage.models.autoencoder import Autoencoder, AutoencoderConfig
from mlx_zimage.models.text_encoder import TextEncoder, TextEncoderConfig
from mlx_zimage.models.transformer import ZImageTransformer
from mlx_zimage.models.transformer_config import TransformerConfig
from mlx_zimage.quantization.recipe import BITS, MODES, Quantization
from mlx_zimage.weights.tensor import PARTS, Part, Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    parts = {part: of_configs(part, folder) for part in PARTS}
    print("| | transformer | text encoder | VAE | all | the largest part |")
    print("|---|---|---|---|---|---|")
    choices = (None, *reversed(BITS), *MODES)
    for choice in choices:
        sizes = [_size(part, parts[part], choice) / 1e9 for part in reversed(PARTS[:2])]
        sizes.append(_size("vae", parts["vae"], None) / 1e9)
        cells = [f"{size:.2f} GB" for size in (*sizes, sum(sizes), max(sizes))]
        name = "bfloat16" if choice is None else f"`--q {choice}`"
        print(f"| {name} | {' | '.join(cells)} |")


def _size(part: Part, tensors: dict[str, Tensor], choice: int | str | None) -> int:
    packings = {} if choice is None else Quantization.parse(choice).choose(part, tensors)
    return sum(output.size for output in outputs(tensors, packings, mx.bfloat16))


def of_configs(part: Part, folder: Path) -> dict[str, Tensor]:
    return shapes(_model(part, folder))


def _model(part: Part, folder: Path) -> nn.Module:
    config: dict[str, Any] = json.loads((folder / part / "config.json").read_text("utf-8"))
    if part == "transformer":
        return ZImageTransformer(TransformerConfig.from_dict(config))
    if part == "text_encoder":
        return TextEncoder(TextEncoderConfig.from_dict(config), whole=True)
    return Autoencoder(AutoencoderConfig.from_dict(config))


if __name__ == "__main__":
    main()
