"""A generation as a library sees it."""

import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import mlx_zimage
from mlx_zimage import (
    CheckpointError,
    Finished,
    LoraError,
    OutOfMemoryError,
    PromptTruncatedWarning,
    Request,
    RequestError,
    Result,
    Started,
    Step,
    Truncated,
    ZImage,
    convert_checkpoint,
)
from mlx_zimage.checkpoint.components import COMPONENTS
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.dtypes import default_dtype
from mlx_zimage.memory.estimate import WeightBytes
from mlx_zimage.models.text_encoder import TextEncoder
from mlx_zimage.models.transformer import Block, ZImageTransformer
from mlx_zimage.prompt.tokenizer import PromptTokenizer
from tests.checkpoint.broken import copy, edit_json
from tests.measures import cosine

SMALL: dict[str, Any] = {"width": 32, "height": 32, "steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> ZImage:
    return ZImage.load(checkpoint("small"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each of these runs."""
    counted: dict[str, int] = {}

    def count(cls: type, name: str) -> None:
        kept = getattr(cls, name)

        def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
            key = f"{cls.__name__}.{name}"
            counted[key] = counted.get(key, 0) + 1
            return kept(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, counting)

    for cls, name in (
        (ZImageTransformer, "__call__"),
        (ZImageTransformer, "prepare"),
        (ZImageTransformer, "rope"),
        (TextEncoder, "__call__"),
        (Block, "__call__"),
        (Block, "modulate"),
    ):
        count(cls, name)
    return counted


def test_result(model: ZImage) -> None:
    result = model.generate("a red circle", **SMALL)
    assert isinstance(result, Result)
    assert result.image.size == (32, 32)
    assert result.image.mode == "RGB"
    assert result.latents.shape == (1, 16, 4, 4)
    assert result.latents.dtype == mx.float32
    assert np.asarray(result.image).std() > 10  # a picture, not a plain one


def test_the_results_request_makes_it_again(model: ZImage) -> None:
    first = model.generate("a red circle", width=48, height=32, steps=3)
    again = model.generate(Request.from_json(first.request.to_json()))
    assert mx.array_equal(first.latents, again.latents)
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))


def test_seeds_differ(model: ZImage) -> None:
    a, b = (model.generate("x", **{**SMALL, "seed": seed}) for seed in (1, 2))
    assert not np.allclose(a.latents, b.latents, atol=0.1)


def test_prompts_differ(model: ZImage) -> None:
    a, b = (model.generate(prompt, **SMALL) for prompt in ("red", "blue"))
    assert not np.array_equal(np.asarray(a.latents), np.asarray(b.latents))


def test_a_list_gives_a_list(model: ZImage) -> None:
    made = model.generate(["red", "blue"], **SMALL)
    assert [result.index for result in made] == [0, 1]
    assert isinstance(model.generate(["red"], **SMALL), list)
    embeds = np.ones((3, 48))
    assert isinstance(model.generate(prompt_embeds=[embeds], **SMALL), list)
    assert isinstance(model.generate(prompt_embeds=embeds, **SMALL), Result)


def test_one_seed_each_is_as_if_alone(model: ZImage) -> None:
    made = model.generate(["red", "blue"], **{**SMALL, "seed": [3, 4]})
    alone = model.generate("blue", **{**SMALL, "seed": 4})
    assert np.allclose(made[1].latents, alone.latents, atol=1e-5)


def test_latents_of_a_seed_given_back_as_latents(model: ZImage) -> None:
    from mlx_zimage.sampling import noise

    latents = noise.draw("torch-cpu", 3, (1, 16, 4, 4))
    given = model.generate("x", latents=latents, steps=2)
    assert mx.array_equal(given.latents, model.generate("x", **SMALL).latents)


def test_events_in_order(checkpoint: Callable[[str], Path]) -> None:
    model = ZImage.load(checkpoint("small"))
    events = list(model.stream("x", **SMALL))
    told = [
        (type(e).__name__, getattr(e, "phase", ""), getattr(e, "component", ""))
        for e in events
        if isinstance(e, Started | Finished)
    ]
    phases = [
        ("load", "text_encoder"),
        ("encode", ""),
        ("load", "transformer"),
        ("denoise", ""),
        ("load", "vae"),
        ("decode", ""),
    ]
    assert told == [(kind, *phase) for phase in phases for kind in ("Started", "Finished")]
    steps = [e for e in events if isinstance(e, Step)]
    assert [(s.number, s.total) for s in steps] == [(1, 2), (2, 2)]
    assert [s.sigma for s in steps] == [0.75, 0.0]
    assert isinstance(events[-1], Result)
    loaded_once = [e for e in model.stream("y", **SMALL) if isinstance(e, Started)]
    assert [e.phase for e in loaded_once] == ["encode", "denoise", "decode"]


def test_nothing_runs_before_it_is_asked_for(model: ZImage, calls: dict[str, int]) -> None:
    events = model.stream("x", **SMALL)
    assert calls == {}
    for event in events:
        if isinstance(event, Step):
            break
    assert calls["ZImageTransformer.__call__"] == 1
    events.close()
    assert calls["ZImageTransformer.__call__"] == 1


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_as_many_forwards_as_steps(model: ZImage, calls: dict[str, int], steps: int) -> None:
    model.unload()
    model.generate("x", **{**SMALL, "steps": steps})
    assert calls["ZImageTransformer.__call__"] == steps
    assert calls["ZImageTransformer.prepare"] == 1
    assert calls["TextEncoder.__call__"] == 1
    # Tables for the caption's refiner, the image and the joint sequence: once a request.
    assert calls["ZImageTransformer.rope"] == 3
    # 2 context refiner blocks once; 2 noise refiner blocks and 3 layers each step.
    assert calls["Block.__call__"] == 2 + 5 * steps
    # Scales and gates for all steps at once.
    assert calls["Block.modulate"] == 5


def test_legacy_schedule_is_one_forward_less(model: ZImage, calls: dict[str, int]) -> None:
    legacy = model.generate("x", **{**SMALL, "steps": 9}, schedule="legacy")
    assert calls["ZImageTransformer.__call__"] == 8
    plain = model.generate("x", **{**SMALL, "steps": 8})
    assert np.allclose(legacy.latents, plain.latents, atol=1e-5)


def test_guidance_costs_one_more_forward_where_it_acts(
    model: ZImage, calls: dict[str, int]
) -> None:
    options = {**SMALL, "steps": 4, "guidance": 2.0}
    model.generate("x", **options)
    assert calls["ZImageTransformer.__call__"] == 8
    # Noise levels 1, .9, .75, .5: the model's time is 0, .1, .25, .5.
    model.generate("x", **options, cfg_truncation=0.2)
    assert calls["ZImageTransformer.__call__"] == 8 + 6
    # The same text on both sides is encoded once, and changes nothing.
    calls.clear()
    model.unload()
    same = model.generate("x", **options, negative_prompt="x")
    assert calls["TextEncoder.__call__"] == 1
    without = model.generate("x", **{**options, "guidance": 0})
    assert np.allclose(same.latents, without.latents, atol=1e-4)


def test_a_negative_prompt_acts(model: ZImage) -> None:
    options = {**SMALL, "guidance": 3.0}
    a, b = (model.generate("x", **options, negative_prompt=text) for text in ("", "the ice"))
    assert not np.allclose(a.latents, b.latents, atol=1e-3)


def test_negative_prompt_with_embeddings(model: ZImage) -> None:
    embeds = np.random.RandomState(0).standard_normal((5, 48))
    a, b = (model.generate(prompt_embeds=embeds, **SMALL, guidance=g) for g in (0.0, 3.0))
    assert not np.allclose(a.latents, b.latents, atol=1e-3)


@pytest.mark.parametrize("kind", ["torch-cpu", "torch-cuda:4090", "torch-cuda:3090", "mlx"])
def test_kinds_of_noise(model: ZImage, kind: str) -> None:
    result = model.generate("x", **{**SMALL, "noise": kind})
    assert result.request.noise == kind


def test_a_cut_prompt_is_told(model: ZImage) -> None:
    prompt = "the red circle " * 200 + "THE END"
    with pytest.warns(
        PromptTruncatedWarning, match=r"ignored: .* \(\+[\d,]+ characters\)"
    ) as warned:
        events = list(model.stream(prompt, **SMALL))
    assert warned[0].filename == __file__
    assert len(str(warned[0].message)) < 160
    [told] = [event for event in events if isinstance(event, Truncated)]
    assert told.limit == 512
    assert told.lost.endswith("THE END")
    assert prompt.endswith(told.lost)
    with pytest.warns(PromptTruncatedWarning) as warned:
        cut = model.generate(prompt.removesuffix(told.lost) + " other words" * 40, **SMALL)
    assert warned[0].filename == __file__
    result = events[-1]
    assert isinstance(result, Result)
    assert mx.array_equal(cut.latents, result.latents)


def test_a_list_of_prompts_is_not_changed(model: ZImage) -> None:
    prompts = ["red", "blue"]
    model.generate(prompts, **SMALL)
    assert prompts == ["red", "blue"]


@pytest.mark.parametrize("options", [{"steps": 0}, {"width": 20}, {"nonsense": 1}, {"image": "x"}])
def test_refused_at_once(model: ZImage, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        model.stream("x", **{**SMALL, **options})


def test_load_refuses(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("small")
    with pytest.raises(LoraError, match=r"no such LoRA: x\.safetensors; name a \.safetensors file"):
        ZImage.load(folder, loras=["x.safetensors"])
    with pytest.raises(RequestError, match="dtype must be one of float32, bfloat16, float16"):
        ZImage.load(folder, dtype="int8")
    with pytest.raises(RequestError, match="memory must be one of"):
        ZImage.load(folder, memory="tiny")
    with pytest.raises(RequestError, match="quantize must be one of 3, 4, 5, 6, 8, mxfp4"):
        ZImage.load(folder, quantize=7)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        ZImage.load(folder / "nowhere")


@pytest.mark.parametrize("memory", ["resident", "staged", "low"])
def test_memory(checkpoint: Callable[[str], Path], memory: Any) -> None:
    model = ZImage.load(checkpoint("wide"), memory=memory)
    options = {"width": 16, "height": 16, "steps": 1, "seed": 0}
    gc.collect()
    before = mx.get_active_memory()
    first = model.generate("x", **options)
    gc.collect()
    kept = mx.get_active_memory() - before
    opened = model._checkpoint
    size = sum(WeightBytes.of(opened[part], mx.float32, {}).total for part in COMPONENTS)
    if memory == "resident":
        assert kept >= size
    else:
        assert kept < 100_000  # the result's own arrays
    model.unload()
    gc.collect()
    assert mx.get_active_memory() - before < 100_000
    again = model.generate("x", **options)
    assert mx.array_equal(first.latents, again.latents)


def test_a_stopped_staged_run_keeps_nothing(checkpoint: Callable[[str], Path]) -> None:
    model = ZImage.load(checkpoint("small"), memory="staged")
    for kind in (Started, Step):
        events = model.stream("x", **SMALL)
        next(event for event in events if isinstance(event, kind))
        events.close()
        assert model._store._loaded == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_embeddings_come_out_and_go_in_again(checkpoint: Callable[[str], Path], dtype: str) -> None:
    model = ZImage.load(checkpoint("small"), dtype=dtype)
    first = model.generate("a red circle", **SMALL)
    assert first.prompt_embeds.ndim == 2
    assert first.prompt_embeds.shape[1] == 48
    again = model.generate(prompt_embeds=first.prompt_embeds, **SMALL)
    assert mx.array_equal(first.latents, again.latents)


@pytest.mark.parametrize("quantize", [None, 4])
def test_loading_leaves_the_random_state_alone(
    checkpoint: Callable[[str], Path], quantize: int | None
) -> None:
    mx.random.seed(0)
    expected = mx.random.uniform().item()
    mx.random.seed(0)
    ZImage.load(checkpoint("even"), quantize=quantize).generate("x", **SMALL)
    assert mx.random.uniform().item() == expected


@pytest.mark.parametrize(
    ("kind", "info", "expected"),
    [
        (mx.cpu, {}, "float32"),
        (mx.gpu, {"architecture": "applegpu_g13s"}, "float16"),
        (mx.gpu, {"architecture": "applegpu_g14p"}, "float16"),
        (mx.gpu, {"architecture": "applegpu_g15d"}, "bfloat16"),
        (mx.gpu, {"architecture": "sm_90"}, "bfloat16"),
        (mx.gpu, {}, "bfloat16"),
    ],
)
def test_default_dtype(
    monkeypatch: pytest.MonkeyPatch, kind: mx.DeviceType, info: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(kind))
    monkeypatch.setattr(mx, "device_info", lambda: info)
    assert default_dtype() == expected


def test_the_text_encoder_stays_out_of_float16(checkpoint: Callable[[str], Path]) -> None:
    result = ZImage.load(checkpoint("small"), dtype="float16").generate("x", **SMALL)
    assert result.prompt_embeds.dtype == mx.bfloat16


@pytest.mark.parametrize("memory", ["resident", "staged"])
def test_modulation_weights_go_before_the_first_step(
    checkpoint: Callable[[str], Path], memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    kept = ZImageTransformer.__call__

    def watched(self: ZImageTransformer, *args: Any) -> mx.array:
        left.append(sum(len(block.adaLN_modulation) for block in self.layers))
        return kept(self, *args)

    monkeypatch.setattr(ZImageTransformer, "__call__", watched)
    model = ZImage.load(checkpoint("small"), memory=memory)
    for _ in range(2):
        model.generate("x", **SMALL)
    assert left == [3 if memory == "resident" else 0] * 4


def test_a_request_of_a_list_gives_a_list_again(model: ZImage) -> None:
    [first] = model.generate(["x"], **SMALL)
    assert isinstance(model.generate(first.request), list)


def test_a_caption_axis_shorter_than_512(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy(checkpoint("small"), tmp_path / "ck")
    edit_json(folder / "transformer/config.json", lambda c: c.update(axes_lens=[256, 64, 64]))
    model = ZImage.load(folder)
    assert model.capabilities().max_prompt_tokens == 224
    with pytest.warns(PromptTruncatedWarning, match="longer than 224 tokens"):
        result = model.generate("word " * 200, **SMALL)
    assert result.prompt_embeds.shape == (224, 48)


FIFTY = """
import sys
from mlx_zimage import ZImage
from mlx_zimage.bench.measure import peak_rss
import mlx.core as mx
model = ZImage.load("demo", memory=sys.argv[1])
for seed in range(50):
    mx.reset_peak_memory()
    model.generate(f"prompt {seed % 7}", width=32, height=32, steps=1, seed=seed)
    print(mx.get_active_memory(), mx.get_peak_memory(), peak_rss())
"""


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["resident", "staged", "low"])
def test_no_growth_over_50_generations(memory: str) -> None:
    """From the tenth on. Measured: 0 bytes in arrays, 200 KB at the peak of the process."""
    printed = subprocess.check_output([sys.executable, "-c", FIFTY, memory], text=True)
    found = np.array([line.split() for line in printed.splitlines()], int)
    assert len(found) == 50
    growth = found[10:].max(axis=0) - found[:10].max(axis=0)
    print(memory, *growth)
    assert growth[0] <= 0 and growth[1] <= 1000
    assert growth[2] < 2_000_000


def test_weights_that_cannot_fit(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_zimage.device.memory", lambda: 1_000_000)
    even = checkpoint("even")  # low memory is for what is stored quantized, or is not
    with pytest.raises(
        OutOfMemoryError, match=r"with memory='staged', and this device has 0.00 GB"
    ):
        ZImage.load(even, quantize=8)
    with pytest.raises(OutOfMemoryError, match=r"with memory='resident'.*; memory='staged' takes"):
        ZImage.load(even, memory="resident")
    with pytest.raises(RequestError, match="convert it, and load the folder"):
        ZImage.load(even, quantize=8, memory="low")


@pytest.mark.parametrize(
    ("quantize", "share"),
    [(None, 0.35), (4, 0.6), pytest.param("mxfp4", 0.8, marks=pytest.mark.slow)],
)
def test_blocks_read_when_their_turn_comes(
    checkpoint: Callable[[str], Path], tmp_path: Path, quantize: Any, share: float
) -> None:
    """The same picture in less memory: one block at a time, and the embeddings of the prompt.

    Measured shares: 0.29, 0.52 and 0.74. What stays in memory weighs more, the smaller the blocks.
    """
    list(
        convert_checkpoint(
            Conversion.plan(checkpoint("demo"), quantize=quantize, dtype="float32"), tmp_path / "ck"
        )
    )
    options = {"seed": 1, "width": 32, "height": 32, "steps": 2}
    drawn, peaks = {}, {}
    for memory in ("staged", "low"):
        model = ZImage.load(tmp_path / "ck", memory=memory)
        model.generate("a", **options)  # what is compiled is compiled now
        model.unload()
        gc.collect()
        before = mx.get_active_memory()
        steps = model.stream("a red star on a blue background", **options)
        mx.reset_peak_memory()
        for event in steps:
            if isinstance(event, Step):
                drawn[memory] = event.latents
                peaks[memory] = mx.get_peak_memory() - before
        steps.close()
    print({memory: f"{peak / 1e6:.1f} MB" for memory, peak in peaks.items()})
    assert mx.array_equal(drawn["staged"], drawn["low"])
    assert peaks["low"] < share * peaks["staged"]


def test_capabilities(checkpoint: Callable[[str], Path]) -> None:
    found = ZImage.load(checkpoint("diffusers"), dtype="bfloat16").capabilities()
    assert (found.width, found.height, found.steps, found.guidance) == (64, 64, 50, 4.0)
    assert (found.side_multiple, found.pixels_per_latent, found.latent_channels) == (4, 2, 16)
    assert (found.dtype, found.quantize, found.max_prompt_tokens) == ("bfloat16", None, 512)


# The cosine between the latents of quantized and exact weights after 2 steps, as measured.
@pytest.mark.parametrize(
    ("quantize", "least"),
    [
        (8, 0.9999),  # 0.99999
        (6, 0.9995),  # 0.99987
        (5, 0.999),  # 0.99950
        (4, 0.997),  # 0.99848
        (3, 0.985),  # 0.99098
        ("mxfp8", 0.998),  # 0.99973, and 0.99836 on MLX 0.32.0
        ("mxfp4", 0.993),  # 0.99659
        ("nvfp4", 0.99),  # 0.99530
    ],
)
def test_quantized(checkpoint: Callable[[str], Path], quantize: int | str, least: float) -> None:
    folder = checkpoint("even")
    exact = ZImage.load(folder).generate("x", **SMALL)
    model = ZImage.load(folder, quantize=quantize)
    found = cosine(model.generate("x", **SMALL).latents, exact.latents)
    print(f"{quantize}: cosine {found:.5f}")
    assert least <= found < 1
    kept = {type(module).__name__ for module in _linear_layers(model, "all_x_embedder.2-1")}
    packed = {type(module).__name__ for module in _linear_layers(model, "layers.0.attention.to_q")}
    assert (kept, packed) == ({"Linear"}, {"QuantizedLinear"})


def _linear_layers(model: ZImage, path: str) -> list[Any]:
    modules = dict(model._store.get("transformer").named_modules())
    return [modules[path]]


def test_widths_that_cannot_be_quantized(checkpoint: Callable[[str], Path]) -> None:
    with pytest.raises(RequestError, match="853 wide; load this checkpoint unquantized"):
        ZImage.load(checkpoint("wide"), quantize=4)


@pytest.mark.parametrize(
    ("dtype", "hint"), [("float32", "download it again"), ("float16", "bfloat16")]
)
def test_numbers_that_overflow(
    checkpoint: Callable[[str], Path], tmp_path: Path, dtype: str, hint: str
) -> None:
    """A black picture is no answer. (float16 overflows on the real weights, too.)"""
    folder = copy(checkpoint("diffusers"), tmp_path / "ck")
    file = folder / "transformer/diffusion_pytorch_model.safetensors"
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    key = "layers.0.feed_forward.w3.weight"
    weights[key] = weights[key] * (1e6 if dtype == "float16" else float("nan"))
    mx.save_safetensors(str(file), weights)
    with pytest.raises(CheckpointError, match=f"not finite in step 1: .* {dtype}; .*{hint}"):
        ZImage.load(folder, dtype=dtype).generate("x", width=32, height=32, steps=2)


@pytest.mark.parametrize("memory", ["resident", "low"])
def test_threads(checkpoint: Callable[[str], Path], memory: Any) -> None:
    """Load in one thread, generate in others, at the same time."""
    loaded: list[ZImage] = []
    folder = checkpoint("small")
    loader = threading.Thread(target=lambda: loaded.append(ZImage.load(folder, memory=memory)))
    loader.start()
    loader.join()
    made: dict[int, Any] = {}

    def generate(seed: int) -> None:
        made[seed] = loaded[0].generate("x", **{**SMALL, "seed": seed})

    threads = [threading.Thread(target=generate, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        alone = loaded[0].generate("x", **{**SMALL, "seed": seed})
        assert mx.array_equal(made[seed].latents, alone.latents)


def test_a_prompt_is_encoded_once(checkpoint: Callable[[str], Path], calls: dict[str, int]) -> None:
    """Seeds and sizes share it; in a staged model the encoder is not even loaded again."""
    model = ZImage.load(checkpoint("small"), memory="staged")
    first = model.generate("a red fox", **SMALL)
    kept = np.array(first.prompt_embeds)
    first.prompt_embeds[:] = 0  # the caller's own
    events = list(model.stream("a red fox", **{**SMALL, "seed": 9, "width": 48}))
    assert calls["TextEncoder.__call__"] == 1
    loaded = {event.component for event in events if isinstance(event, Started)}
    assert loaded == {"", "transformer", "vae"}
    assert np.array_equal(np.array(events[-1].prompt_embeds), kept)
    model.generate("a red fox", **SMALL, guidance=2.0, negative_prompt="blue")
    assert calls["TextEncoder.__call__"] == 2
    model.unload()
    model.generate("a red fox", **SMALL)
    assert calls["TextEncoder.__call__"] == 3


def test_check_fills_in_and_draws_nothing(model: ZImage, calls: dict[str, int]) -> None:
    request = model.check("x", width=32, seed=1)
    assert (request.width, request.height, request.steps, request.guidance) == (32, 64, 8, 0.0)
    assert request.noise == "torch-cpu"
    assert model.check(request) == request
    assert not calls
    with pytest.raises(RequestError, match="width must be a multiple of 16, not 17"):
        model.check("x", width=17)
    with pytest.raises(OutOfMemoryError):
        model.check(["x"] * 4000, width=8192, height=8192)


def test_check_and_estimate_change_nothing(checkpoint: Callable[[str], Path]) -> None:
    """The order in which prompts leave the cache least of all."""
    model = ZImage.load(checkpoint("small"))
    for prompt in ("a", "b", "c"):
        model.generate(prompt, **SMALL)
    before = list(model._embeddings._arrays)
    assert before == [("", "a"), ("", "b"), ("", "c")]
    model.estimate("a", **SMALL)
    model.check("b", **SMALL)
    model.stream("a", **SMALL).close()
    assert list(model._embeddings._arrays) == before
    state = [{**vars(model)}, {**vars(model._store)}]
    model.estimate("another", **SMALL)
    assert [{**vars(model)}, {**vars(model._store)}] == state


def test_the_prompt_is_tokenized_once(model: ZImage, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    turn = PromptTokenizer.turn

    def counting(self: PromptTokenizer, prompt: str, limit: int) -> Any:
        turns.append(prompt)
        return turn(self, prompt, limit)

    monkeypatch.setattr(PromptTokenizer, "turn", counting)
    model.generate(["x", "x", "y"], **SMALL, guidance=2.0, negative_prompt="y")
    assert turns == ["x", "y"]


def test_steps_of_a_stream_are_copies(model: ZImage) -> None:
    expected = model.generate("x", **SMALL)
    for event in model.stream("x", **SMALL):
        if isinstance(event, Step):
            memory = np.array(event.latents, copy=False)
            memory.flags.writeable = True
            memory[:] = 0
        elif isinstance(event, Result):
            assert mx.array_equal(event.latents, expected.latents)


def test_a_model_cannot_be_pickled(model: ZImage) -> None:
    with pytest.raises(TypeError, match="cannot be pickled; load the checkpoint again"):
        pickle.dumps(model)


def test_metadata_names_the_model(checkpoint: Callable[[str], Path]) -> None:
    result = ZImage.load("demo", quantize=8).generate("x", width=32, height=32, steps=1, seed=4)
    metadata = dict(result.metadata)
    assert Request.from_dict(metadata.pop("request")) == result.request
    assert len(metadata.pop("identity")) == 16
    assert metadata == {
        "index": 0,
        "model": "demo",
        "dtype": "float32",
        "quantize": 8,
        "mlx_zimage": mlx_zimage.__version__,
        "mlx": version("mlx"),
    }


FORKED = """
import os, sys
from mlx_zimage import RequestError, ZImage
model = ZImage.load("demo")
model.generate("x", width=32, height=32, steps=1, seed=1)
child = os.fork()
if child == 0:
    try:
        model.generate("x", width=32, height=32, steps=1, seed=1)
    except RequestError as error:
        print(error)
        sys.stdout.flush()
        os._exit(7)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_child_is_told(tmp_path: Path) -> None:
    """It would wait forever for threads that did not survive the fork."""
    printed = subprocess.check_output([sys.executable, "-c", FORKED], text=True, timeout=120)
    message, status = printed.splitlines()
    assert "'spawn'" in message and status == "7"
