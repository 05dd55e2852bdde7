"""A training step beside torch's automatic gradients on diffusers' transformer with PEFT."""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.training.adapters import chosen, make, shape_of
from mlx_zimage.training.forward import RecomputedBlock, inputs, loss
from mlx_zimage.training.options import TrainingOptions
from tests.measures import relative_error

pytestmark = pytest.mark.parity
Measure = Callable[[str, float, float], None]
TARGETS = ("attention", "feed_forward", "adaLN_modulation", "cap_embedder", "t_embedder", "linear")
LENGTHS, SIGMAS = (20, 40), (0.25, 0.9)
LOSS, GRADIENT = 1e-6, 1e-4  # measured: see the summary


def _normal(*shape: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("recomputes", [False, True])
def test_gradients(recomputes: bool, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    """Pictures of different levels, with captions of different lengths, and every kind of layer."""
    folder = checkpoint("small")
    ours = Checkpoint.open(folder)["transformer"].load(mx.float32)
    ours.freeze()
    layers = chosen(ours, TARGETS)
    shapes = {path: shape_of(layer) for path, layer in layers.items()}
    adapters = make(shapes, TrainingOptions(rank=4), {})
    for number, (path, adapter) in enumerate(adapters.items()):
        adapter.up = mx.array(_normal(*adapter.up.shape, seed=number)) * 0.05
        layers[path].adapter = adapter
    if recomputes:
        ours.layers = [RecomputedBlock.of(block) for block in ours.layers]
        ours.noise_refiner = [RecomputedBlock.of(block) for block in ours.noise_refiner]
        ours.context_refiner = [RecomputedBlock.of(block) for block in ours.context_refiner]
    clean, noise = _normal(2, 16, 8, 12, seed=1), _normal(2, 16, 8, 12, seed=2)
    captions = [_normal(n, ours.config.cap_feat_dim, seed=n) for n in LENGTHS]
    sigmas = np.array(SIGMAS, np.float32)
    given = inputs(ours, clean, noise, sigmas, [mx.array(c) for c in captions])
    parameters = {path: adapter.trainable_parameters() for path, adapter in adapters.items()}

    def of(values):
        for path, arrays in values.items():
            adapters[path].update(arrays)
        return loss(ours, given)

    value, gradients = mx.value_and_grad(of)(parameters)
    mx.eval(value, gradients)
    expected, theirs = _in_torch(folder, parameters, clean, noise, sigmas, captions)
    measure("training: loss", abs(value.item() - expected) / expected, LOSS)
    assert theirs.keys() == gradients.keys()
    for path, (down, up) in theirs.items():
        measure("training: gradients of A", relative_error(gradients[path]["down"], down), GRADIENT)
        measure("training: gradients of B", relative_error(gradients[path]["up"], up), GRADIENT)


def _in_torch(folder, parameters, clean, noise, sigmas, captions):
    """The published model answers noise - clean, negated, at 1 - sigma."""
    import torch
    from diffusers import ZImageTransformer2DModel
    from peft import LoraConfig

    model = ZImageTransformer2DModel.from_pretrained(folder / "transformer", dtype=torch.float32)
    model.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=[*parameters]))
    modules = dict(model.named_modules())
    for path, arrays in parameters.items():
        pairs = (("lora_A", arrays["down"]), ("lora_B", arrays["up"]))
        for name, array in pairs:
            getattr(modules[path], name)["default"].weight.data = torch.from_numpy(np.array(array))
    level = sigmas[:, None, None, None]
    noisy = torch.from_numpy((1 - level) * clean + level * noise)
    out = model(
        list(noisy.unsqueeze(2).unbind(0)),
        torch.from_numpy(1 - sigmas),
        [torch.from_numpy(c) for c in captions],
        return_dict=False,
    )[0]
    answer = torch.stack(out).squeeze(2)
    error = torch.nn.functional.mse_loss(-answer, torch.from_numpy(noise - clean))
    error.backward()
    return error.item(), {
        path: (
            modules[path].lora_A["default"].weight.grad.numpy(),
            modules[path].lora_B["default"].weight.grad.numpy(),
        )
        for path in parameters
    }


def test_a_trained_file_in_diffusers(
    checkpoint: Callable[[str], Path], tmp_path: Path, measure: Measure
) -> None:
    """Both pipelines load the file, and draw the same from the same noise."""
    import torch
    from PIL import Image

    from mlx_zimage import ZImage, train

    from . import published

    folder, out = checkpoint("small"), tmp_path / "a.safetensors"
    pixels = np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    (tmp_path / "0.txt").write_text("the red one")
    options = TrainingOptions(
        steps=5, rank=3, learning_rate=2e-2, sample_every=0, checkpointing=False
    )
    for _ in train(tmp_path, out, folder, options=options, dtype="float32"):
        pass
    request = {"width": 64, "height": 64, "steps": 4, "seed": 1, "guidance": 0.0}
    without = ZImage.load(folder, dtype="float32").generate("the red one", **request)
    ours = ZImage.load(folder, dtype="float32", loras=[out]).generate("the red one", **request)
    assert relative_error(without.latents, ours.latents) > 0.03
    pipe = published.load(folder)
    pipe.load_lora_weights(out)
    theirs = pipe(
        ["the red one"],
        width=64,
        height=64,
        num_inference_steps=4,
        guidance_scale=0.0,
        generator=torch.Generator("cpu").manual_seed(1),
        output_type="latent",
    ).images
    measure("a trained LoRA in diffusers: latents", relative_error(ours.latents, theirs), 1e-4)
