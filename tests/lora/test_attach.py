"""LoRAs on a loaded model: what they change, and that nothing else changes."""

import hashlib
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_zimage import Lora, LoraError, OutOfMemoryError, Result, Step, ZImage
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.lora.adapter import Adapter
from mlx_zimage.lora.attach import Attached, LayerChanges
from mlx_zimage.lora.forms import Change, InputRotation, LowRank, Magnitude
from mlx_zimage.models.blocks import HEADROOM
from mlx_zimage.models.layers.linear import Linear
from tests.measures import relative_error

from .stored import store, write
from .writers import Sample, sample

DRAWN: dict[str, Any] = {"width": 32, "height": 32, "steps": 1, "seed": 1}
MEMORY = ("resident", "staged", "low")
DORA, NORMS = "lycoris, dora, rows", "lycoris, norms and biases"


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("small")


@pytest.fixture(scope="module")
def samples(folder: Path) -> dict[str, Sample]:
    tensors = Checkpoint.open(folder)["transformer"].tensors
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    names = ("peft", "musubi", DORA, NORMS)
    return {name: sample(name, shapes, seed=n) for n, name in enumerate(names)}


@pytest.fixture(scope="module")
def files(samples: dict[str, Sample], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("loras")
    return {name: each.write(out / re.sub(r"\W+", "-", name)) for name, each in samples.items()}


@pytest.fixture(scope="module")
def encoder_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the text encoder alone."""
    rng, tensors = np.random.default_rng(5), {}
    for key, tensor in Checkpoint.open(folder)["text_encoder"].needed.items():
        if key.endswith("_proj.weight"):
            start, (rows, columns) = f"text_encoder.{key.removesuffix('.weight')}", tensor.shape
            tensors[f"{start}.lora_A.weight"] = store(rng.normal(size=(4, columns)), "F32")
            tensors[f"{start}.lora_B.weight"] = store(rng.normal(size=(rows, 4)), "F32")
    return write(tmp_path_factory.mktemp("loras") / "encoder.safetensors", tensors)


@pytest.fixture(scope="module")
def model(folder: Path) -> ZImage:
    return ZImage.load(folder, dtype="float32")


@pytest.fixture(autouse=True)
def _without_loras(request: pytest.FixtureRequest) -> None:
    if "model" in request.fixturenames:
        request.getfixturevalue("model").set_loras([])


def _latents(model: ZImage, **options: Any) -> np.ndarray:
    return np.array(model.generate("a fox", **{**DRAWN, **options}).latents)


def test_nothing_is_left_of_a_lora_that_is_off(model: ZImage, files: dict[str, Path]) -> None:
    before, transformer = _latents(model), model._store.get("transformer")
    model.set_loras([Lora(files["peft"]), Lora(files[NORMS])])
    assert relative_error(_latents(model), before) > 1e-3
    model.set_loras([Lora(files["peft"], 0), Lora(files[NORMS], 0)])
    assert [lora.scale for lora in model.loras] == [0, 0]
    assert np.array_equal(_latents(model), before)
    model.set_loras([])
    assert model.loras == ()
    assert np.array_equal(_latents(model), before)
    assert model._store.get("transformer") is transformer


def test_a_changed_model_shares_all_arrays(model: ZImage, files: dict[str, Path]) -> None:
    base = dict(tree_flatten(model._store.get("transformer").parameters()))
    model.set_loras([Lora(files[DORA])])
    changed = dict(tree_flatten(model._store.get("transformer").parameters()))
    assert changed.keys() == base.keys()
    assert all(changed[key] is base[key] for key in base)


@pytest.mark.parametrize(("name", "scale"), [("peft", 1), (DORA, -0.3), (NORMS, 0.7)])
def test_pictures_are_those_of_merged_weights(
    name: str, scale: float, model: ZImage, samples: dict[str, Sample], files: dict[str, Path]
) -> None:
    """The error relative to the effect on the latents is at most 1.9e-6."""
    before = _latents(model)
    model.set_loras([f"{files[name]}:{scale}"])
    attached = _latents(model)
    model.set_loras([])
    transformer = model._store.get("transformer")
    base = dict(tree_flatten(transformer.parameters()))
    merged = samples[name].merged({key: np.array(value) for key, value in base.items()}, scale)
    try:
        changed = [(key, mx.array(value.astype(np.float32))) for key, value in merged.items()]
        transformer.load_weights(changed, strict=False)
        expected = _latents(model)
    finally:
        transformer.load_weights([*base.items()])
    assert relative_error(attached, before) > 0.1
    assert relative_error(attached - before, expected - before) < 4e-6


@pytest.mark.parametrize("memory", ["staged", "low"])
def test_every_memory_mode_draws_the_same(
    memory: Any, model: ZImage, folder: Path, files: dict[str, Path]
) -> None:
    loras = [Lora(files["peft"], 0.5), Lora(files[DORA]), Lora(files[NORMS], 2)]
    model.set_loras(loras)
    other = ZImage.load(folder, dtype="float32", memory=memory, loras=loras)
    assert np.array_equal(_latents(other), _latents(model))
    other.set_loras([])
    model.set_loras([])
    assert np.array_equal(_latents(other), _latents(model))


def test_the_order_has_no_effect(model: ZImage, files: dict[str, Path]) -> None:
    """Several LoRAs add up: each is a change of the base. The error is at most 9.1e-7."""
    loras = [Lora(files["peft"], 0.5), Lora(files["musubi"], -0.7), Lora(files[DORA], 0.6)]
    model.set_loras(loras)
    together = _latents(model)
    assert [lora.source for lora in model.loras] == [str(lora.source) for lora in loras]
    model.set_loras(loras[::-1])
    assert np.array_equal(_latents(model), together)


def test_changes_of_a_layer_add_up() -> None:
    """Each is a change of the base. The error is at most 3.4e-7."""
    layer = Linear(64, 32)
    layer.weight, layer.bias = (
        mx.random.normal(shape, key=mx.random.key(n)) for n, shape in enumerate([(32, 64), (32,)])
    )
    x = mx.random.normal((3, 64), key=mx.random.key(2))
    base = layer(x)
    parts = [mx.random.normal((4, n), key=mx.random.key(n)) for n in (64, 32)]
    loras = [LowRank(parts[0] * n, parts[1].T, 0.1 * n) for n in (1, 2, 3)]
    dora = Magnitude(loras[0], mx.random.normal((32,), key=mx.random.key(9)))
    turn = InputRotation(mx.random.normal((4, 120), key=mx.random.key(8)) * 0.1, 16)
    bias = mx.random.normal((32,), key=mx.random.key(7))
    changes = [(Change(loras[0]), 0.5), (Change(loras[1], bias), -1.0), (Change(turn), 0.3)]
    changes += [(Change(loras[2]), 0.5), (Change(dora), 0.4), (Change(None, bias), 0.25)]
    expected = base
    for change, strength in changes:
        layer.adapter = LayerChanges([(change, strength)])
        expected = expected + layer(x) - base
    layer.adapter = LayerChanges(changes)
    assert relative_error(layer(x) - base, expected - base) < 1e-6


def test_a_running_generation_goes_on_as_it_began(
    model: ZImage, folder: Path, files: dict[str, Path]
) -> None:
    for each in (model, ZImage.load(folder, dtype="float32", memory="staged")):
        each.set_loras([Lora(files["peft"])])
        expected = each.generate("a fox", **DRAWN)
        assert expected.metadata["loras"][0]["scale"] == 1
        events = each.stream("a fox", **DRAWN)
        each.set_loras([Lora(files[DORA])])
        for event in events:
            if isinstance(event, Step):
                each.set_loras([])
            if isinstance(event, Result):
                assert np.array_equal(event.latents, expected.latents)
                assert event.metadata["loras"] == expected.metadata["loras"]
        assert "loras" not in each.describe()


def test_embeddings_of_different_encoders_do_not_mix(
    model: ZImage, encoder_file: Path, files: dict[str, Path]
) -> None:
    before, embeds = model.generate("a fox", **DRAWN), []
    for loras in ([Lora(encoder_file)], [Lora(encoder_file, 0.5)], [Lora(files["peft"])]):
        model.set_loras([*loras])
        embeds.append(model.generate("a fox", **DRAWN).prompt_embeds)
    assert relative_error(embeds[0], before.prompt_embeds) > 1e-2
    assert relative_error(embeds[1], embeds[0]) > 1e-2
    assert np.array_equal(embeds[2], before.prompt_embeds)
    model.set_loras([])
    assert np.array_equal(_latents(model), before.latents)


def test_one_that_cannot_be_used_changes_nothing(
    model: ZImage, files: dict[str, Path], tmp_path: Path
) -> None:
    model.set_loras([Lora(files["peft"], 0.5)])
    before = model.loras
    other = tmp_path / "other.safetensors"
    write(other, {"double_blocks.0.x.lora_A.weight": store(np.ones((4, 64)), "F32")})
    cases: list[tuple[Any, str]] = [
        ([files[DORA], other], "other.safetensors is a LoRA for FLUX"),
        ([files[DORA], tmp_path / "none.safetensors"], "no such LoRA: .*none.safetensors"),
        ([files["peft"], files["peft"]], "is listed twice; name it once"),
        (str(files["peft"]), "loras must be a list"),
        ([3], "must be a path or a name, not 3"),
        ([f"{files['peft']}:nan"], "scale must be a number from -100 to 100, not nan"),
        ([f"{files['peft']}:1e9"], "not 1000000000.0"),
    ]
    for loras, message in cases:
        with pytest.raises(LoraError, match=message) as raised:
            model.set_loras(loras)
        assert "\n" not in str(raised.value)
        assert model.loras == before


def test_a_file_is_read_once(
    model: ZImage, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = Adapter.open

    def watched(path: Path, targets: Any) -> Adapter:
        opened.append(path)
        return real(path, targets)

    monkeypatch.setattr(Adapter, "open", watched)
    file = tmp_path / "style.safetensors"
    file.write_bytes(files["peft"].read_bytes())
    model.set_loras([file])
    model.set_loras([])
    model.set_loras([Lora(file, 0.5)])
    assert opened == [file]
    file.write_bytes(files["musubi"].read_bytes())  # another file of that name
    model.set_loras([file])
    assert opened == [file, file]
    assert model.loras[0].family != "PEFT"


def test_estimates_count_what_loras_take(model: ZImage, files: dict[str, Path]) -> None:
    before = model.estimate("a fox", **DRAWN)
    model.set_loras([files["peft"]])
    after = model.estimate("a fox", **DRAWN)
    (lora,) = model.loras
    assert lora.nbytes == sum(t.nbytes for t in mx.load(str(files["peft"])).values())  # type: ignore[union-attr]
    assert after.denoise - before.denoise == lora.nbytes
    assert after.decode - before.decode == lora.nbytes


def test_loras_that_do_not_fit_are_refused(
    model: ZImage, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [stored.needed for stored in model._checkpoint.components.values()]
    weights = sum(4 * tensor.count for tensors in sizes for tensor in tensors.values())
    monkeypatch.setattr("mlx_zimage.device.memory", lambda: weights + 1000)
    with pytest.raises(OutOfMemoryError, match="the weights and the LoRAs take"):
        model.set_loras([files["peft"]])
    assert model.loras == ()


def test_what_is_applied_is_told(model: ZImage, files: dict[str, Path]) -> None:
    model.set_loras([Lora(str(files["peft"]), 0.5)])
    (lora,) = model.loras
    digest = hashlib.sha256(files["peft"].read_bytes()).hexdigest()
    assert (lora.source, lora.scale, lora.sha256) == (str(files["peft"]), 0.5, digest)
    assert model.capabilities().loras == (f"{files['peft']}:0.5",)
    entry = {"source": str(files["peft"]), "scale": 0.5, "sha256": digest}
    assert model.describe()["loras"] == [entry]
    result = model.generate("a fox", **DRAWN)
    assert result.metadata["loras"] == [entry]


def test_unloading_keeps_the_loras(model: ZImage, files: dict[str, Path]) -> None:
    model.set_loras([files[DORA]])
    before = _latents(model)
    model.unload()
    assert np.array_equal(_latents(model), before)


def test_a_bias_has_the_headroom_of_its_layer() -> None:
    """In float16 two layers of a block run smaller by a constant, and biases with them."""
    layer = Linear(8, 4, bias=False)
    bias = mx.array([1.0, 2.0, 3.0, 4.0])
    for path, factor in (("layers.0.feed_forward.w2", HEADROOM), ("layers.0.feed_forward.w1", 1)):
        attached = Attached([({"transformer": {path: Change(None, bias)}}, 0.5)])
        adapter = attached._layers["transformer"][path]
        for dtype in (mx.float16, mx.bfloat16):
            y = adapter(mx.zeros((1, 8), dtype), layer)
            expected = bias * 0.5 * (factor if dtype == mx.float16 else 1)
            assert mx.allclose(y[0].astype(mx.float32), expected)


def test_threads_may_draw_and_change_at_once(model: ZImage, files: dict[str, Path]) -> None:
    model.set_loras([Lora(files["peft"])])
    expected = {1.0: _latents(model)}
    model.set_loras([])
    expected[0.0] = _latents(model)
    failures: list[Any] = []

    def draw() -> None:
        try:
            result = model.generate("a fox", **DRAWN)
            scale = sum(lora["scale"] for lora in result.metadata.get("loras", []))
            if not np.array_equal(result.latents, expected[scale]):
                failures.append(scale)
        except Exception as error:  # for the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for number, thread in enumerate(threads):
        model.set_loras([Lora(files["peft"])] if number % 2 else [])
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
