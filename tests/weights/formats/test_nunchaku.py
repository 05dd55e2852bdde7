"""nunchaku's files give their packed numbers back to the bit, and the dense weights' latents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_zimage import ZImage, convert_checkpoint, verify_checkpoint
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.checkpoint.files import read_files
from mlx_zimage.convert.plan import Conversion
from mlx_zimage.weights.packing import Packing
from tests.measures import relative_error

from . import foreign, svdquant
from .raw import f32, write_raw
from .svdquant import Form

DRAWN: dict[str, Any] = {"width": 32, "height": 32, "steps": 2, "seed": 1}
FORMS = {
    "int4 r32": Form("int4"),
    "int4 r128": Form("int4", 128),
    "fp4 r32": Form("fp4"),
    "fp4 without scales of rows": Form("fp4", per_row=False),
}


@pytest.fixture(scope="module", params=FORMS)
def written(
    request: pytest.FixtureRequest,
    checkpoint: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Form, Path, dict[str, np.ndarray], Path]:
    """A form, its file, the dense numbers, and the official checkpoint beside it."""
    source, form = checkpoint("tiled"), FORMS[request.param]
    tensors, dense = svdquant.transformer(foreign.official(source, "transformer"), form)
    file = write_raw(tmp_path_factory.mktemp("svdquant") / "a.safetensors", tensors)
    return form, file, dense, source


Written = tuple[Form, Path, dict[str, np.ndarray], Path]


def test_numbers(written: Written) -> None:
    """The relative error is at most 1.2e-7: float32, where the writer has float64."""
    _, file, dense, _ = written
    found = read_files([file])["transformer"]
    assert found.keys() == dense.keys()
    for key, array in dense.items():
        assert found[key].shape == array.shape, key
        assert relative_error(found[key].read(), array) <= 2e-7, key
        third = array.shape[0] // 3
        assert relative_error(found[key].rows(third, array.shape[0]), array[third:]) <= 2e-7, key


@pytest.mark.parametrize("kind", ["int4", "fp4"])
def test_packed_numbers_are_those_of_the_writer(tmp_path: Path, kind: str) -> None:
    """To the last bit, in MLX's own packing, wherever a range of rows begins."""
    form, generator = Form(kind, per_row=False, per_tensor=False), np.random.default_rng(1)
    tensors, _ = svdquant.layer(generator.standard_normal((384, 256)), form, generator)
    packed, numbers = svdquant.quantized(generator.standard_normal((384, 256)), form)
    path = "layers.0.attention.to_out.0"
    raw = {f"{path}.{name}": value for name, value in (tensors | packed).items()}
    file = write_raw(tmp_path / "a.safetensors", {**raw, "x_embedder.weight": f32(np.ones((1, 1)))})
    tensor = read_files([file])["transformer"][f"{path}.weight"]
    assert tensor.packing is not None and tensor.packed_rows is not None
    for start, stop in ((0, 384), (0, 1), (130, 131), (100, 300)):
        words, *scales = tensor.packed_rows(start, stop)
        floats = [s if s.dtype == mx.uint8 else s.astype(mx.float32) for s in scales]
        found = tensor.packing.plain.unpack([words, *floats], mx.float32)
        assert np.array_equal(np.array(found), numbers[start:stop].astype(np.float32))


def test_draws_what_the_dense_weights_draw(written: Written, tmp_path: Path) -> None:
    """Loaded, written as it is stored and loaded again, and read block by block from the disk.

    The latents' relative error is at most 1e-6, in float32.
    """
    form, file, dense, source = written
    plain = foreign.replaced(source, tmp_path / "plain", dense)
    list(convert_checkpoint(Conversion.plan(file, dtype="float32", base=source), tmp_path / "out"))
    assert [*verify_checkpoint(tmp_path / "out")]
    packings = {
        t.packing for t in Checkpoint.open(tmp_path / "out")["transformer"].tensors.values()
    }
    mode, group = ("affine", 64) if form.kind == "int4" else ("nvfp4", 16)
    scaled = form.kind == "fp4"
    expected = Packing(mode, 4, group, rank=form.rank, input_scale=True, output_scale=scaled)
    assert packings - {None} == {expected}
    latents = ZImage.load(plain, dtype="float32").generate("x", **DRAWN).latents
    for memory in ("resident", "low"):
        model = ZImage.load(tmp_path / "out", dtype="float32", memory=memory)
        assert relative_error(model.generate("x", **DRAWN).latents, latents) <= 1e-5
