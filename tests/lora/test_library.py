"""Where LoRAs are looked for: files, names in folders, and the Hub, played by a small server."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage import DownloadError, Lora, LoraError, ZImage
from mlx_zimage.checkpoint.checkpoint import Checkpoint
from mlx_zimage.events import Downloaded, finish
from mlx_zimage.lora.file import lora_path
from mlx_zimage.lora.library import VARIABLE, Library
from tests.hub.hub_server import COMMIT, Hub, serving

from .writers import sample

CONSTANTS = "huggingface_hub.constants"


@pytest.fixture(scope="module")
def shelf(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two LoRAs, one of them in a folder, and a folder of PEFT."""
    folder = tmp_path_factory.mktemp("shelf")
    tensors = Checkpoint.open(checkpoint("small"))["transformer"].tensors
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    (folder / "people").mkdir()
    sample("musubi", shapes).write(folder / "watercolour")
    sample("peft", shapes).write(folder / "people/anna")
    sample("peft, folder", shapes).write(folder / "old")
    return folder


@pytest.fixture
def hub(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve the folder's copy as owner/model."""
    folder = tmp_path / "repository"
    shutil.copytree(shelf, folder)
    with serving(folder) as hub:
        monkeypatch.setattr(f"{CONSTANTS}.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{CONSTANTS}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_DISABLE_XET", True)
        yield hub


def _find(source: Any, folder: Path | None = None, *, download: bool = False) -> Path:
    return finish(Library.open(folder).locating(source, download=download))


def test_texts_are_read_as_sources_and_scales(tmp_path: Path) -> None:
    assert Lora.parse("a.safetensors:0.8") == Lora("a.safetensors", 0.8)
    assert Lora.parse("a:-.5") == Lora("a", -0.5)
    assert Lora.parse("owner/repo@v1/a.safetensors:1e-1") == Lora(
        "owner/repo@v1/a.safetensors", 0.1
    )
    assert Lora.parse("C:/a.safetensors") == Lora("C:/a.safetensors")
    assert Lora.parse("a:b") == Lora("a:b")
    named = tmp_path / "a:2"  # a file of that name wins
    named.touch()
    assert Lora.parse(str(named)) == Lora(str(named))
    assert Lora.parse(f"{named}:3") == Lora(str(named), 3)
    assert Lora("x/style.v2.safetensors").name == "style.v2"
    for wrong in ("a:101", "a:-inf", "a:nan", "", "  :1", "a\0b"):
        with pytest.raises(LoraError):
            Lora.parse(wrong)


def test_a_scale_that_is_no_number(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    file.touch()
    for wrong, scale in ((f"{file}:abc", "abc"), (f"{file}:", "")):
        with pytest.raises(LoraError, match=f"a LoRA's scale must be a number.*not '{scale}'"):
            _find(Lora.parse(wrong).source)


def test_names_in_folders(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("watercolour", "watercolour.safetensors"):
        assert _find(name, shelf) == shelf / "watercolour.safetensors"
    assert _find("people/anna", shelf) == shelf / "people/anna.safetensors"
    assert _find("old", shelf) == shelf / "old"
    with pytest.raises(LoraError, match="no such LoRA: watercolour; name a"):
        _find("watercolour")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "none"), str(shelf)]))
    assert _find("watercolour") == shelf / "watercolour.safetensors"
    (tmp_path / "watercolour").touch()  # a path wins over a name
    assert _find("watercolour") == Path("watercolour")
    with pytest.raises(LoraError, match=r"the LoRA folder .*none is not there"):
        Library.open(tmp_path / "none")


def test_near_misses_are_named(shelf: Path) -> None:
    with pytest.raises(LoraError, match=r"did you mean watercolour\?"):
        _find("watercolor", shelf)
    with pytest.raises(LoraError, match=r"did you mean people/anna\?"):
        _find("people/ana", shelf)
    wrong = shelf / "watercolours.safetensors"
    with pytest.raises(LoraError, match=r"did you mean .*/watercolour\.safetensors\?"):
        _find(wrong)
    assert sorted(Library.open(shelf).names()) == ["old", "people/anna", "watercolour"]


def test_a_file_of_the_hub_is_fetched_when_allowed(hub: Hub, shelf: Path) -> None:
    source = "owner/model/people/anna.safetensors"
    with pytest.raises(DownloadError, match=r"allow the download of owner/model/people/anna"):
        _find(source)
    assert not hub.requests
    events = Library.open().locating(source, download=True)
    seen = [next(events)]
    assert isinstance(seen[0], Downloaded)
    path = finish(events)
    assert path.read_bytes() == (shelf / "people/anna.safetensors").read_bytes()
    before = len(hub.requests)
    assert _find(source) == path
    assert len(hub.requests) == before


def test_revisions_are_held(hub: Hub) -> None:
    pinned = f"owner/model@{COMMIT}/watercolour.safetensors"
    path = _find(pinned, download=True)
    assert COMMIT in path.parts
    assert _find(pinned) == path
    with pytest.raises(DownloadError, match="not in the Hub's cache"):
        _find("owner/model@v1/watercolour.safetensors")
    with pytest.raises(DownloadError, match="owner/model has no revision 'v9'"):
        _find("owner/model@v9/watercolour.safetensors", download=True)


def test_a_repo_stands_for_its_only_lora(hub: Hub) -> None:
    with pytest.raises(DownloadError, match=r"must hold one \.safetensors file.*watercolour"):
        _find("owner/model", download=True)
    with pytest.raises(DownloadError, match=r"did you mean watercolour\.safetensors\?"):
        _find("owner/model/watercolor.safetensors", download=True)
    shutil.rmtree(hub.folder / "people")
    adapter = _find("owner/model/old", download=True)
    assert {file.name for file in adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert _find("owner/model/old") == adapter
    (adapter / "adapter_model.safetensors").unlink()  # as when a download is interrupted
    with pytest.raises(DownloadError, match="not in the Hub's cache"):
        _find("owner/model/old")
    assert _find("owner/model/old", download=True) == adapter


def test_the_file_of_an_adapter_comes_with_its_config(hub: Hub) -> None:
    """The scale is in the config, without which the file would act too weakly, or too strongly."""
    source = "owner/model/old/adapter_model.safetensors"
    folder = _find(source, download=True)
    assert (folder / "adapter_config.json").is_file()
    assert lora_path(_find(source)) == folder


def test_a_repo_of_one_file_needs_no_name(hub: Hub) -> None:
    for folder in ("people", "old"):
        shutil.rmtree(hub.folder / folder)
    path = _find("owner/model", download=True)
    assert path.name == "watercolour.safetensors"
    assert _find("owner/model") == path


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _find("owner/model/watercolour.safetensors", download=True)
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)
    before = len(hub.requests)
    assert _find("owner/model/watercolour.safetensors") == path
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        _find("owner/model/people/anna.safetensors", download=True)
    assert len(hub.requests) == before


def test_a_file_that_arrives_broken_is_refused(hub: Hub) -> None:
    hub.wrong.add("watercolour.safetensors")
    with pytest.raises(DownloadError, match="arrived with another hash"):
        _find("owner/model/watercolour.safetensors", download=True)
    hub.status = 503
    with pytest.raises(DownloadError, match="status 503; try again later"):
        _find("owner/model/people/anna.safetensors", download=True)


def test_a_local_model_takes_a_lora_of_the_hub(
    hub: Hub, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = "owner/model/watercolour.safetensors:0.5"
    with pytest.raises(DownloadError):
        ZImage.load(checkpoint("small"), loras=[lora])
    model = ZImage.load(checkpoint("small"), loras=[lora], download=True)
    assert [(each.source, each.scale) for each in model.loras] == [(lora[:-4], 0.5)]
    with pytest.raises(DownloadError):
        model.set_loras(["owner/model/people/anna.safetensors"])
    model.set_loras(["owner/model/people/anna.safetensors"], download=True)
    assert [each.name for each in model.loras] == ["anna"]
