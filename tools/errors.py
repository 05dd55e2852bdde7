"""What each recipe costs in error, on the demo: in its weights, and in the latents it draws.

    python -m tools.errors [--count 16] [--group-size 64] [--calibrated]

Weights: root mean square of the error in the quantized layers, over that of the weights. First and
last step: relative L2 distance of the latents there from the unquantized model's, the mean of some
prompts. The same with MLX's own quantization, where ours searches. With --calibrated, conversions
that are calibrated: the bits for each weight of the transformer's blocks, its bytes, the errors.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from mlx_zimage import Conversion, Step, ZImage, convert_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.hub.locate import DEMO
from mlx_zimage.memory.store import Store
from mlx_zimage.quantization import recipe
from mlx_zimage.quantization.mixed import size_of
from mlx_zimage.quantization.recipe import BITS, MODES, Quantization, pack
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.sizes import outputs
from mlx_zimage.weights.tensor import stored
from tools.train_demo.evaluate import held_out, prompts

CALIBRATED: dict[str, dict[str, Any]] = {
    **{f"--q {bits} --calibrate": {"quantize": bits} for bits in (8, 6, 5, 4, 3, 2)},
    **{
        f"--q {bits} --calibrate --rotate": {"quantize": bits, "rotate": True} for bits in (4, 3, 2)
    },
    **{f"--mixed {bits}": {"mixed": bits} for bits in ("4.5", "4.0", "3.5")},
    **{
        f"--mixed {bits} --rotate": {"mixed": bits, "rotate": True}
        for bits in ("4.0", "3.5", "3.0")
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--group-size", type=int, choices=[32, 64, 128], default=64)
    parser.add_argument("--calibrated", action="store_true")
    options = parser.parse_args()
    texts = prompts(held_out(options.count))
    whole = _drawn(Checkpoint.open(DEMO), texts, None)
    if options.calibrated:
        _calibrated(texts, whole)
        return
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


def _calibrated(texts: list[str], whole: list[np.ndarray]) -> None:
    print("| | bits | MB | first step | last step |")
    print("|---|---|---|---|---|")
    for name, wanted in CALIBRATED.items():
        with TemporaryDirectory() as folder:
            conversion = Conversion.plan(DEMO, calibrate=True, **wanted)
            for _ in convert_checkpoint(conversion, Path(folder) / "out"):
                pass
            checkpoint = Checkpoint.open(Path(folder) / "out")
            drawn = _drawn(checkpoint, texts, None)
        tensors = checkpoint["transformer"].tensors
        packings = stored(tensors)
        weights = {path: tensors[f"{path}.weight"] for path in packings}
        count = sum(tensor.count for tensor in weights.values())
        bits = 8 * sum(size_of(t, packings[path]) for path, t in weights.items()) / count
        size = sum(o.size for o in outputs(tensors, packings, mx.bfloat16)) / 1e6
        first, last = _away(drawn, whole)
        print(f"| `{name}` | {bits:.2f} | {size:.2f} | {first:.2%} | {last:.2%} |", flush=True)


def _errors(asked: Quantization, texts: list[str], whole: list[np.ndarray]) -> list[float]:
    drawn = _drawn(Checkpoint.open(DEMO), texts, asked)
    return [_weights(asked), *_away(drawn, whole)]


def _away(drawn: list[np.ndarray], whole: list[np.ndarray]) -> list[float]:
    """The relative distance after the first and the last step, the mean of all prompts."""
    away = [
        np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)
        for a, b in zip(drawn, whole, strict=True)
    ]
    first, last = np.mean(away, 0)
    return [float(first), float(last)]


def _usual(array: mx.array, packing: Packing) -> list[mx.array]:
    """MLX's own way."""
    return list(mx.quantize(array, packing.group_size, packing.bits))


def _weights(asked: Quantization) -> float:
    checkpoint, error, size = Checkpoint.open(DEMO), 0.0, 0.0
    for component in checkpoint.components.values():
        for path, packing in component.packings(asked).items():
            tensor = component.needed[f"{path}.weight"]
            back = packing.unpack(pack(tensor, packing, mx.bfloat16, 0, tensor.shape[0]))
            array = tensor.read().astype(mx.float32)
            error += float((back.astype(mx.float32) - array).square().sum())
            size += float(array.square().sum())
    return float((error / size) ** 0.5)


def _drawn(
    checkpoint: Checkpoint, texts: list[str], asked: Quantization | None
) -> list[np.ndarray]:
    """Of each prompt, the latents after the first and the last step, each in one row."""
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
