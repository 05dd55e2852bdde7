"""NAG and TwinFlow beside implementations in torch that share nothing with ours."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import Nag, Result, Step, ZImage
from tests.measures import relative_error
from tests.twinflow import write_twinflow

from . import limits
from .cases import OTHER, PROMPT

pytestmark = pytest.mark.parity
Measure = Callable[[str, float, float], None]
LEVELS = [1.0, 0.8, 0.4]  # before the shift of 3


def _embeds(model: ZImage, prompts: list[str]) -> list[Any]:
    import torch

    results = model.generate(
        prompts, width=32, height=32, steps=1, seed=0, guidance=0, sampler="euler"
    )
    arrays = [result.prompt_embeds.astype(mx.float32) for result in results]
    return [torch.from_numpy(np.array(array)) for array in arrays]


def _noise(seed: int, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def _our_steps(model: ZImage, **request: Any) -> tuple[list[np.ndarray], list[Result]]:
    events = list(model.stream(**request))
    steps = [np.array(event.latents) for event in events if isinstance(event, Step)]
    return steps, [event for event in events if isinstance(event, Result)]


def test_the_reference_is_the_published_model(
    checkpoint: Callable[[str], Path], measure: Measure
) -> None:
    import torch

    from . import published
    from .torch_transformer import TorchTransformer

    for kind in ("small", "even"):
        pipe, reference = published.load(checkpoint(kind)), TorchTransformer(checkpoint(kind))
        caption = torch.randn(41, reference.config["cap_feat_dim"])
        latents = torch.randn(16, 8, 12)
        with torch.no_grad():
            (theirs,) = pipe.transformer(
                [latents[:, None]], torch.tensor([0.3]), [caption], return_dict=False
            )[0]
        ours = reference(latents, caption, reference.time(float(np.float32(0.3))))
        error = relative_error(theirs[:, 0].numpy(), ours.numpy())
        measure("published transformer beside torch in float64", error, limits.TRANSFORMER)


@pytest.mark.parametrize("kind", ["small", "wide"])
@pytest.mark.parametrize("nag", [Nag(5.0), Nag(11.0, tau=2.5, alpha=0.25), Nag(3.0, 1.2, 1.0)])
def test_nag(kind: str, nag: Nag, checkpoint: Callable[[str], Path], measure: Measure) -> None:
    """Two pictures of unequal captions, each with a negative of its own, longer and shorter."""
    import torch

    from .torch_transformer import TorchNag, TorchTransformer

    folder = checkpoint(kind)
    model, reference = ZImage.load(folder, dtype="float32"), TorchTransformer(folder)
    prompts, negatives, seeds = [PROMPT, OTHER * 2], [OTHER, "blurred"], [42, 7]
    steps, results = _our_steps(
        model,
        prompt=prompts,
        negative_prompt=negatives,
        nag=nag,
        seed=seeds,
        width=48,
        height=64,
        schedule=LEVELS,
        shift=3.0,
    )
    assert len(results) == 2
    captions, others = _embeds(model, prompts), _embeds(model, negatives)
    sigmas = [*(float(np.float32(3 * u / (1 + 2 * u))) for u in LEVELS), 0.0]
    for row, seed in enumerate(seeds):
        x = _noise(seed, steps[0][row].shape)
        torch_nag = TorchNag(others[row], nag.scale, nag.tau, nag.alpha)
        for step, (sigma, following) in enumerate(pairwise(sigmas)):
            time = reference.time(1 - sigma)
            with torch.no_grad():
                x = x - (following - sigma) * reference(x, captions[row], time, torch_nag)
            error = relative_error(steps[step][row], x.numpy())
            measure(f"latents after every step with NAG, {kind}", error, limits.LATENTS)


@pytest.mark.parametrize(("count", "gap"), [(2, 0.6), (4, 0.5)])
def test_twinflow(
    count: int,
    gap: float,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    measure: Measure,
) -> None:
    """The authors' loop: see `sampling_loop` in TwinFlow's unified_sampler.py."""
    import torch

    from .torch_transformer import TorchTransformer

    folder = write_twinflow(checkpoint("even"), tmp_path / "twinflow")
    model, reference = ZImage.load(folder, dtype="float32"), TorchTransformer(folder)
    size: dict[str, Any] = {"width": 48, "height": 64, "seed": 42}
    steps, _ = _our_steps(model, prompt=PROMPT, steps=count, **size)
    (caption,) = _embeds(model, [PROMPT])
    shape = steps[0].shape
    x = _noise(42, shape)[0]
    fresh = torch.Generator().manual_seed(43)
    t_steps = torch.linspace(0.001, 1.0 - gap, count, dtype=torch.float64).float()
    t_steps = torch.cat([1 - t_steps, torch.zeros(1)])
    for step, (t, t_next) in enumerate(pairwise(t_steps)):
        target = torch.zeros_like(t)
        time = reference.twinflow_time(
            float(t.sign() * (1.0 - t.abs())), float(target.sign() * (1.0 - target.abs()))
        )
        s, s_next = float(t), float(t_next)
        with torch.no_grad():
            velocity = -reference(x, caption, time)
        clean = x - s * velocity
        x = (1 - s_next) * clean
        if s_next:
            x = x + s_next * torch.randn(shape, generator=fresh).double()[0]
        error = relative_error(steps[step][0], x.numpy())
        measure("latents after every step with TwinFlow", error, limits.LATENTS)
