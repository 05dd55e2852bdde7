"""Schedules, noise, tokens and key lists beside the published ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_zimage.prompt.tokenizer import PromptTokenizer
from mlx_zimage.sampling import noise
from mlx_zimage.sampling.schedule import SchedulerConfig, make_schedule
from tests.measures import relative_error
from tests.prompt.texts import SHARED_TOKENIZER, TEXTS, needs_shared

from . import limits
from .official import COMPONENTS, key_list, write_key_lists

pytestmark = pytest.mark.parity
Measure = Callable[[str, float, float], None]


@pytest.mark.parametrize(
    "settings",
    [
        {"shift": 3.0},
        {"shift": 6.0},
        {"shift": 3.0, "use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        {"shift": 3.0, "shift_terminal": 0.02},
    ],
)
def test_schedule(settings: dict[str, object], measure: Measure) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.z_image.pipeline_z_image import (
        calculate_shift,
        get_default_z_image_sigmas,
    )

    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    config = SchedulerConfig.from_dict(settings)
    for steps in range(1, 51):
        if steps == 1 and "shift_terminal" in settings:
            continue  # divides 0 by 0 on both sides
        for tokens in (4, 256, 1024, 4096, 16384):
            scheduler.set_timesteps(
                sigmas=get_default_z_image_sigmas(steps), mu=calculate_shift(tokens)
            )
            made = make_schedule(config, steps, tokens)
            error = relative_error(made.sigmas, scheduler.sigmas.numpy())
            measure("sigmas, N = 1 to 50", error, limits.SCHEDULE)
            error = relative_error(made.timesteps, scheduler.timesteps.numpy())
            measure("timesteps, N = 1 to 50", error, limits.SCHEDULE)


@pytest.mark.parametrize("dynamic", [False, True])
def test_legacy_schedule(dynamic: bool, measure: Measure) -> None:
    """diffusers before 0.39 set the scheduler's sigma_min to 0 and let it space N points itself."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic)
    scheduler.sigma_min = 0.0
    config = SchedulerConfig(shift=3.0, use_dynamic_shifting=dynamic)
    for steps in range(2, 51):
        with np.errstate(divide="ignore"):
            scheduler.set_timesteps(steps, mu=1.0)
        theirs = scheduler.sigmas.numpy()
        assert theirs[-2:].tolist() == [0, 0]  # the idle step, which ours leaves out
        tokens = 256 + round(3840 * (1.0 - 0.5) / 0.65)  # where mu is 1, to the rounding
        ours = make_schedule(config, steps, tokens, "legacy").sigmas
        limit = 1e-5 if dynamic else limits.SCHEDULE  # 6.1e-6, of that rounding
        measure(f"legacy sigmas, dynamic {dynamic}", relative_error(ours, theirs[:-1]), limit)


def test_cpu_noise(measure: Measure) -> None:
    import torch

    for seed in (0, 1, 42, 2**31, 2**32 - 1, 2**32 + 7, 2**64 - 1):
        for count in (1, 2, 15, 16, 17, 31, 64, 1000, 16 * 128 * 128):
            generator = torch.Generator().manual_seed(seed)
            theirs = torch.randn(count, generator=generator).numpy()
            measure(
                "noise of CPU seeds",
                relative_error(noise.torch_cpu(seed, count), theirs),
                limits.CPU_NOISE,
            )


def _same_ids(folder: Path, theirs: object) -> None:
    ours = PromptTokenizer.from_folder(folder)
    for text in TEXTS:
        for form in (text, f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"):
            assert ours.encode(form) == theirs(form).input_ids, form[:80]


def test_tokens_of_a_small_tokenizer(checkpoint: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    folder = checkpoint("small") / "tokenizer"
    _same_ids(folder, AutoTokenizer.from_pretrained(folder))


def test_tokens_from_vocabulary_and_merges(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import Qwen2Tokenizer

    from tests.prompt.texts import split_tokenizer

    split_tokenizer(checkpoint("small") / "tokenizer", tmp_path)
    _same_ids(tmp_path, Qwen2Tokenizer.from_pretrained(tmp_path))


@needs_shared
def test_tokens_of_the_official_tokenizer(tmp_path: Path) -> None:
    from transformers import Qwen2Tokenizer

    (tmp_path / "tokenizer.json").symlink_to(SHARED_TOKENIZER / "tokenizer.json")
    config = {"tokenizer_class": "Qwen2Tokenizer", "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    _same_ids(tmp_path, Qwen2Tokenizer.from_pretrained(tmp_path))


def test_chat_template_and_cut(checkpoint: Callable[[str], Path]) -> None:
    """The template as the tokenizer's own renders it, cut where transformers cuts it."""
    from transformers import AutoTokenizer

    folder = checkpoint("small") / "tokenizer"
    theirs, ours = AutoTokenizer.from_pretrained(folder), PromptTokenizer.from_folder(folder)
    for text in TEXTS:
        turn = theirs.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        ids = theirs(turn, truncation=True, max_length=512).input_ids
        assert list(ours.turn(text).ids) == ids


@pytest.mark.parametrize("part", COMPONENTS)
def test_key_lists_are_the_reference_classes(part: str, tmp_path: Path) -> None:
    write_key_lists(tmp_path)
    assert key_list(part, tmp_path) == key_list(part)
