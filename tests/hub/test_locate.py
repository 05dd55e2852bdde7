"""Names to folders. Nothing here may touch the network."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage import CheckpointError, DownloadError, RequestError, ZImage
from mlx_zimage.hub.locate import locate


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("options", [{"download": True}, {"revision": "v1"}])
def test_a_folder_takes_no_hub_options(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"for the Hub, and .* is here; leave it out"):
        ZImage.load(tmp_path, **options)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-this-name/x"])
def test_names_no_file_system_takes(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        locate(name)


def test_a_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert locate(tmp_path / "x.safetensors") == tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="is truncated"):
        ZImage.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "name", ["nowhere", "a/b.gguf", "a/b/c", "../up", "./x", "/no/such", "a/", ""]
)
def test_no_such_thing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "":
        with pytest.raises(CheckpointError):
            ZImage.load(name)  # the current folder, which is no checkpoint
        return
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        locate(name)


@pytest.mark.parametrize("name", ["turbo", "base", "someone/else"])
def test_nothing_is_downloaded_unasked(name: str) -> None:
    with pytest.raises(DownloadError, match=f"run: mlx-zimage download {name} "):
        ZImage.load(name)
    with pytest.raises(DownloadError, match=f"download {name} --revision v1"):
        ZImage.load(name, revision="v1")


def _snapshot(cache: Path, source: Path) -> Path:
    repo = cache / "models--Tongyi-MAI--Z-Image-Turbo"
    shutil.copytree(source, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("a" * 40)
    return repo / "snapshots" / ("a" * 40)


def test_from_the_hubs_cache(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    assert locate("turbo") == snapshot
    assert locate("turbo", revision="a" * 40) == snapshot
    ZImage.load("turbo", download=True)  # allowed, and not needed


@pytest.mark.parametrize(
    "lost",
    [
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors.index.json",
        "transformer/diffusion_pytorch_model-00002-of-00003.safetensors",
        "text_encoder",
        "tokenizer",
        "scheduler",
    ],
)
def test_here_in_part(checkpoint: Callable[[str], Path], tmp_path: Path, lost: str) -> None:
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    if (snapshot / lost).is_dir():
        shutil.rmtree(snapshot / lost)
    else:
        (snapshot / lost).unlink()
    kind = CheckpointError if lost.endswith("index.json") else DownloadError
    with pytest.raises(kind, match=r"only in part \(it lacks|no index that says"):
        ZImage.load("turbo")


def test_a_download_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, with no network: a typed error."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    said = r"Tongyi-MAI/Z-Image-Turbo cannot be downloaded: .* run later: mlx-zimage download turbo"
    with pytest.raises(DownloadError, match=said):
        ZImage.load("turbo", download=True)
