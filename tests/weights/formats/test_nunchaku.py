"""nunchaku's files give their packed numbers back to the bit, and the dense weights' latents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_zimage import CheckpointError, ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.files import read_files
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.files import read_json
from mlx_zimage.weights.formats import read_component
from mlx_zimage.weights.packing import Packing
from mlx_zimage.weights.sizes import outputs
from mlx_zimage.weights.tensor import Tensor
from tests.measures import relative_error

from . import foreign, svdquant
from .raw import Raw, f32, write_raw
from .svdquant import Form

DRAWN: dict[str, Any] = {"width": 32, "height": 32, "steps": 2, "seed": 1}
FORMS = {
    "int4 r32": Form("int4"),
    "int4 r128": Form("int4", 128),
    "fp4 r32": Form("fp4"),
    "fp4 r128": Form("fp4", 128),
    "fp4 without scales of rows": Form("fp4", per_row=False),
    "fp4 without any scale": Form("fp4", per_row=False, per_tensor=False),
}
PATH = "layers.0.attention.to_out.0"


def _layer(form: Form) -> tuple[Raw, np.ndarray]:
    """A file with one layer, and its numbers."""
    generator = np.random.default_rng(1)
    tensors, dense = svdquant.layer(generator.standard_normal((384, 256)), form, generator)
    file = {f"{PATH}.{name}": value for name, value in tensors.items()}
    return {**file, "x_embedder.weight": f32(np.ones((1, 1)))}, dense


def _read(file: Path) -> Tensor:
    return read_files([file])["transformer"][f"{PATH}.weight"]


@pytest.mark.parametrize("name", FORMS)
def test_numbers(tmp_path: Path, name: str) -> None:
    """The relative error is at most 1.2e-7: float32, where the writer has float64."""
    form = FORMS[name]
    tensors, dense = _layer(form)
    tensor = _read(write_raw(tmp_path / "a.safetensors", tensors))
    mode, group = ("affine", 64) if form.kind == "int4" else ("nvfp4", 16)
    scaled = form.kind == "fp4" and (form.per_row or form.per_tensor)
    packing = Packing(mode, 4, group, rank=form.rank, input_scale=True, output_scale=scaled)
    assert tensor.packing == packing
    for start, stop in ((0, 384), (0, 1), (130, 131), (100, 300)):
        assert relative_error(tensor.rows(start, stop), dense[start:stop]) <= 2e-7


@pytest.mark.parametrize("kind", ["int4", "fp4"])
def test_packed_numbers_are_those_of_the_writer(tmp_path: Path, kind: str) -> None:
    """To the last bit, in MLX's own packing, wherever a range of rows begins."""
    form = Form(kind, per_row=False, per_tensor=False)
    rest = np.random.default_rng(2).standard_normal((384, 256))
    packed, numbers = svdquant.quantized(rest, form)
    tensors = _layer(form)[0] | {f"{PATH}.{name}": value for name, value in packed.items()}
    tensor = _read(write_raw(tmp_path / "a.safetensors", tensors))
    assert tensor.packing is not None and tensor.packed_rows is not None
    for start, stop in ((0, 384), (0, 1), (130, 131), (100, 300)):
        words, *scales = tensor.packed_rows(start, stop)
        floats = [s if s.dtype == mx.uint8 else s.astype(mx.float32) for s in scales]
        found = tensor.packing.plain.unpack([words, *floats], mx.float32)
        assert np.array_equal(np.array(found), numbers[start:stop].astype(np.float32))


@pytest.fixture(
    scope="module", params=["int4 r32", pytest.param("fp4 r32", marks=pytest.mark.slow)]
)
def written(
    request: pytest.FixtureRequest,
    checkpoint: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, Path]:
    """A transformer's file, the dense checkpoint, and the one that both come from."""
    source, folder = checkpoint("tiled"), tmp_path_factory.mktemp("svdquant")
    form, arrays = FORMS[request.param], foreign.official(source, "transformer")
    tensors, dense = svdquant.transformer(arrays, form, skip_refiners=form.kind == "fp4")
    file = write_raw(folder / "a.safetensors", tensors)
    return file, foreign.replaced(source, folder / "plain", dense), source


@pytest.fixture(scope="module")
def stored(
    written: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The file converted as it is stored, and the dense checkpoint."""
    file, plain, source = written
    out = tmp_path_factory.mktemp("stored") / "out"
    list(convert_checkpoint(Conversion.plan(file, dtype="float32", base=source), out))
    return out, plain


def test_draws_what_the_dense_weights_draw(stored: tuple[Path, Path]) -> None:
    """Loaded, and read block by block: within 4e-7."""
    out, plain = stored
    assert [*verify_checkpoint(out)]
    latents = ZImage.load(plain, dtype="float32").generate("x", **DRAWN).latents
    for memory in ("resident", "low"):
        model = ZImage.load(out, dtype="float32", memory=memory)
        assert relative_error(model.generate("x", **DRAWN).latents, latents) <= 1e-6


def test_an_adapter_acts_as_on_the_dense_weights(stored: tuple[Path, Path], tmp_path: Path) -> None:
    """Within 5e-7, on layers whose input is smoothed."""
    generator = np.random.default_rng(3)
    lora = {}
    for name, rows, width in (("attention.to_q", 384, 384), ("feed_forward.w2", 384, 1024)):
        path = f"transformer.layers.0.{name}"
        lora[f"{path}.lora_A.weight"] = generator.standard_normal((4, width)) * width**-0.5
        lora[f"{path}.lora_B.weight"] = generator.standard_normal((rows, 4))
    file = foreign.write(
        tmp_path / "lora.safetensors",
        {key: array.astype(np.float32) for key, array in lora.items()},
    )
    a, b, unchanged = (
        ZImage.load(place, dtype="float32", loras=loras).generate("x", **DRAWN).latents
        for place, loras in ((stored[0], [file]), (stored[1], [file]), (stored[1], []))
    )
    assert relative_error(b, unchanged) > 1e-3
    assert relative_error(a, b) <= 1e-6


def test_bytes_are_counted(stored: tuple[Path, Path]) -> None:
    transformer = Checkpoint.open(stored[0])["transformer"]
    counted = sum(
        o.size for o in outputs(transformer.needed, transformer.packings(None), mx.float16)
    )
    module = transformer.load(mx.float16)
    assert counted == sum(array.nbytes for _, array in tree_flatten(module.parameters()))


@pytest.mark.slow
def test_unpacked_for_diffusers(stored: tuple[Path, Path], tmp_path: Path) -> None:
    """Every layer as one matrix of numbers: those of the dense checkpoint, within 2e-7."""
    out = tmp_path / "dense"
    plan = Conversion.plan(stored[0], dtype="float32", target="diffusers")
    list(convert_checkpoint(plan, out))
    dense = foreign.official(stored[1], "transformer")
    found = foreign.official(out, "transformer")
    assert found.keys() == dense.keys()
    for key, array in dense.items():
        assert relative_error(found[key], array) <= 3e-7, key


@pytest.mark.parity
def test_diffusers_draws_the_same_from_the_dense_weights(
    stored: tuple[Path, Path], measure: Callable[[str, float, float], None]
) -> None:
    from tests.parity import limits, ours, published
    from tests.parity.cases import Case

    case = Case("svdquant", "tiled", 64, 32)
    theirs = published.run(published.load(stored[1]), case)
    mine = ours.run(ZImage.load(stored[0], dtype="float32"), case)
    for a, b in zip(mine.steps, theirs.steps, strict=True):
        measure("latents from nunchaku's weights", relative_error(a, b), limits.LATENTS)


@pytest.mark.slow
def test_quantized_anew(written: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """One matrix is made of the packed one and the side path: that of the dense checkpoint.

    Rounding differs where a number lies between two levels: in at most 1 of 30,000 words.
    """
    file, plain, source = written
    keys = "layers.0.feed_forward.w3", "layers.0.attention.to_k"
    words = []
    for place, base in ((file, source), (plain, None)):
        out = tmp_path / place.name
        conversion = Conversion.plan(place, quantize=4, only="transformer", base=base)
        list(convert_checkpoint(conversion, out))
        tensors = read_component(out / "transformer", read_json(out / "transformer/config.json"))
        words.append([np.array(tensors[f"{key}.weight"].packed_rows(0, 384)[0]) for key in keys])
    for a, b in zip(*words, strict=True):
        assert (a != b).mean() <= 1e-3


def _sized(name: str, kind: str, *shape: int) -> Callable[[Raw], None]:
    size = {"F32": 4, "BF16": 2}.get(kind, 1)

    def change(tensors: Raw) -> None:
        tensors[f"{PATH}.{name}"] = (kind, shape, bytes(size * int(np.prod(shape))))

    return change


BROKEN: dict[str, tuple[str, Callable[[Raw], Any], str]] = {
    "no tiles": ("int4", _sized("qweight", "I8", 100, 128), "tiles of 128 x 128"),
    "numbers that are no bytes": ("int4", _sized("qweight", "F32", 384, 128), "matrix of bytes"),
    "groups of 32": ("int4", _sized("wscales", "BF16", 8, 384), r"the shape \(4, 384\)"),
    "groups of 64 in fp4": ("fp4", _sized("wscales", "F8_E4M3", 4, 384), r"shape \(16, 384\)"),
    "scales of another type": ("int4", _sized("wscales", "U8", 4, 384), "the type F16 or BF16"),
    "ranks that differ": ("int4", _sized("proj_up", "BF16", 384, 16), r"shape \(384, 32\)"),
    "a rank of 24": (
        "int4",
        lambda t: [_sized(n, "BF16", s, 24)(t) for n, s in (("proj_up", 384), ("proj_down", 256))],
        "multiple of 16, not 24",
    ),
    "no rank": (
        "int4",
        lambda t: [_sized(n, "BF16", s, 0)(t) for n, s in (("proj_up", 384), ("proj_down", 256))],
        "multiple of 16, not 0",
    ),
    "a path without its end": ("int4", lambda t: t.pop(f"{PATH}.proj_up"), "must come with"),
    "no scales": ("fp4", lambda t: t.pop(f"{PATH}.wscales"), "must come with"),
    "smoothing of other columns": ("int4", _sized("smooth_factor", "BF16", 384), "the shape"),
    "scales of other rows": ("fp4", _sized("wcscales", "BF16", 256), "the shape"),
    "two scales of a tensor": ("fp4", _sized("wtscale", "F32", 2), "must be one float"),
    "awq": ("int4", _sized("wzeros", "BF16", 4, 384), "cannot be read yet"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_layers_are_named(tmp_path: Path, name: str) -> None:
    kind, change, match = BROKEN[name]
    tensors, _ = _layer(Form(kind))
    change(tensors)
    with pytest.raises(CheckpointError, match=match) as error:
        read_files([write_raw(tmp_path / "a", tensors)])
    assert PATH in str(error.value)
    assert "\n" not in str(error.value)
