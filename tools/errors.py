"""What each recipe costs in error, on the demo: in its weights, and in the latents it draws.

    python -m tools.errors [--count 16] [--group-size 64]

Weights: root mean square of the error in the quantized layers, over that of the weights. First and
last step: relative L2 distance of the latents there from the unquantized model's, the mean of some
prompts. The same with MLX's own quantization, where ours searches.
"""

import argparse
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from mlx_zimage import Step, ZImage
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.hub.locate import DEMO
from mlx_zimage.memory.store import Store
from mlx_zimage.quantization import recipe
from mlx_zimage.quantization.recipe import BITS, MODES, Quantization, pack
from mlx_zimage.weights.packing import Packing
from tools.train_demo.evaluate import held_out, prompts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--group-size", type=int, choices=[32, 64, 128], default=64)
    options = parser.parse_args()
    texts = prompts(held_out(options.count))
    whole = _drawn(texts, None)
    print("| | weights | first step | last step | `mx.quantize`: weights | first | last |")
    print("|---|---|---|---|---|---|---|")
    choices: tuple[int | str, ...] = (*reversed(BITS), *MODES)
    for choice in choices:
        group = options.group_size if isinstance(choice, int) else None
        asked = Quantization.parse(choice, group)
        cells = _errors(asked, texts, whole)
        if isinstance(choice, int) and choice <= 6:
            with patch.object(recipe, "search", _usual):
                cells += _errors(asked, texts, whole)
        print(f"| `--q {choice}` | {' | '.join(f'{cell:.2%}' for cell in cells)} |", flush=True)


def _errors(asked: Quantization, texts: list[str], whole: list[np.ndarray]) -> list[float]:
    drawn = _drawn(texts, asked)
    away = [
        np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)
        for a, b in zip(drawn, whole, strict=True)
    ]
    return [_weights(asked), *np.mean(away, 0)]


def _usual(array: mx.array, packing: Packing) -> list[mx.array]:
    """MLX's own way."""
    return list(mx.quantize(array, packing.group_size, packing.bits))


def _weights(asked: Quantization) -> float:
    checkpoint, error, size = Checkpoint.open(DEMO), 0.0, 0.0
    for stored in checkpoint.components.values():
        for path, packing in stored.packings(asked).items():
            tensor = stored.needed[f"{path}.weight"]
            back = packing.unpack(pack(tensor, packing, mx.bfloat16, 0, tensor.shape[0]))
            array = tensor.read().astype(mx.float32)
            error += float((back.astype(mx.float32) - array).square().sum())
            size += float(array.square().sum())
    return float((error / size) ** 0.5)


def _drawn(texts: list[str], asked: Quantization | None) -> list[np.ndarray]:
    """Of each prompt, the latents after the first and the last step, each in one row."""
    checkpoint = Checkpoint.open(DEMO)
    model = ZImage(checkpoint, Store(checkpoint, asked, "float32", "resident"))
    found = []
    for seed, text in enumerate(texts):
        steps = []
        for event in model.stream(text, seed=seed):
            if isinstance(event, Step):
                steps.append(np.array(event.latents).reshape(1, -1))
            if isinstance(event, Step) and event.number == event.total:
                break  # no picture is needed
        found.append(np.concatenate([steps[0], steps[-1]]))
    return found


if __name__ == "__main__":
    main()
