"""Names and paths to folders. Nothing in this file may touch the network."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage import CheckpointError, DownloadError, RequestError, ZImage, ZImageError
from mlx_zimage.hub.download import fetching, look_up
from mlx_zimage.hub.locate import DEMO, locate

TURBO = "models--Tongyi-MAI--Z-Image-Turbo"
COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def _snapshot(cache: Path, source: Path) -> Path:
    """Copy `source` into a cache of the Hub, as Turbo."""
    folder = cache / TURBO / "snapshots" / COMMIT
    shutil.copytree(source, folder)
    (cache / TURBO / "refs").mkdir()
    (cache / TURBO / "refs/main").write_text(COMMIT)
    return folder


def _add_to_index(folder: Path, **entries: list[str | None]) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path
    assert locate(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("options", [{"download": True}, {"revision": "v1"}])
def test_a_folder_takes_no_hub_options(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"for the Hub, and .* is on this machine; leave it out"):
        ZImage.load(tmp_path, **options)


def test_a_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert locate(tmp_path / "x.safetensors") == tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="is truncated"):
        ZImage.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["demo", "turbo", "base"])
def test_a_name_wins_over_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    if name == "demo":
        assert locate(name) == DEMO
    else:
        with pytest.raises(DownloadError, match=rf"; for the folder of that name write \./{name}$"):
            locate(name)
    assert locate(f"./{name}") == Path(name)
    assert locate(Path(name)) == Path(name)


def test_a_folder_does_not_shadow_a_model(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("turbo").mkdir()
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    assert locate("turbo") == snapshot
    assert _path_of(fetching("turbo", download=True)) == snapshot


def _path_of(events: Any) -> Path:
    """The path that a generator without events returns."""
    with pytest.raises(StopIteration) as end:
        next(events)
    path: Path = end.value.value
    return path


@pytest.mark.parametrize(
    "name",
    [
        *(
            "nowhere",
            "a/b.gguf",
            "a/b/c",
            "../up",
            "./x",
            "/no/such",
            "a/",
            "",
            " ",
            "a b/c",
            "a/é",
        ),
        *("a--b/c", "a/b..c", "-a/b", "a/b-", "a/" + "b" * 97, "two\nlines"),
        *("x" * 5000, "x/" * 3000, f"owner/{'x' * 6000}", "a\0b", "~nobody-of-this-name/x"),
    ],
)
def test_no_such_checkpoint(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for resolve in (locate, look_up):
        with pytest.raises(CheckpointError, match="no such checkpoint") as caught:
            resolve(name)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 250


@pytest.mark.parametrize("name", ["", "owner/model"])
def test_a_path_is_no_repo(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name:
        with pytest.raises(CheckpointError, match="no such checkpoint"):
            locate(Path(name))
    else:
        assert locate(Path(name)) == Path(".")  # the working directory, as Python has it


@pytest.mark.parametrize("source", [None, 5, True, b"demo", ["demo"], {"x": "y" * 500}])
def test_odd_sources(source: Any) -> None:
    for resolve in (locate, look_up, ZImage.load):
        with pytest.raises(RequestError, match="a model must be a name, a Hub repo id or a path"):
            resolve(source)


@pytest.mark.parametrize("revision", [5, b"main", "", " "])
def test_odd_revisions(revision: Any) -> None:
    for resolve in (locate, look_up):
        with pytest.raises(RequestError, match="a revision must be a branch, a tag or a commit"):
            resolve("turbo", revision)


@pytest.mark.parametrize("name", ["turbo", "base", "someone/else"])
def test_nothing_is_downloaded_by_itself(name: str) -> None:
    with pytest.raises(DownloadError, match=f"is not on this machine; run: .* download {name} "):
        ZImage.load(name)
    with pytest.raises(DownloadError, match=f"download {name} --revision v1"):
        ZImage.load(name, revision="v1")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_by_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    advice = f"{variable} is set: unset it and run: mlx-zimage download turbo"
    for resolve in (locate, look_up, lambda name: next(fetching(name, download=True))):
        with pytest.raises(DownloadError, match=advice) as caught:
            resolve("turbo")
        assert "later" not in str(caught.value)


def test_what_is_on_this_machine_is_not_looked_up(tmp_path: Path) -> None:
    for source in ("demo", tmp_path):
        with pytest.raises(RequestError, match="is on this machine; there is nothing to download"):
            look_up(source)


def test_from_the_hubs_cache(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    assert locate("turbo") == snapshot
    assert locate("turbo", revision=COMMIT) == snapshot
    assert _path_of(fetching("turbo", download=True)) == snapshot  # allowed, and not needed


SHARD = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ("vae/config.json", "vae/config.json"),
        (SHARD, SHARD),
        ("text_encoder", "text_encoder/config.json"),
        ("tokenizer", "tokenizer/tokenizer.json"),
        ("scheduler", "scheduler/scheduler_config.json"),
    ],
)
def test_a_part_of_it(
    checkpoint: Callable[[str], Path], tmp_path: Path, lost: str, named: str
) -> None:
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    _remove(snapshot / lost)
    with pytest.raises(DownloadError, match=rf"incomplete \({named} is missing\) on this machine"):
        locate("turbo")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_the_weights_that_are_needed(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    _remove(snapshot / SHARD)
    assert locate("turbo", weights=["text_encoder", "vae"]) == snapshot
    assert locate("turbo", weights=[]) == snapshot
    with pytest.raises(DownloadError, match="incomplete"):
        locate("turbo", weights=["transformer"])
    _remove(snapshot / "transformer/config.json")
    with pytest.raises(DownloadError, match=r"config\.json is missing"):
        locate("turbo", weights=["vae"])


def test_components_of_the_future(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """A repo consists of what its model_index.json names."""
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    _add_to_index(
        snapshot,
        siglip=["transformers", "Siglip2VisionModel"],
        siglip_processor=["transformers", "Siglip2ImageProcessorFast"],
        unused=[None, None],
    )
    with pytest.raises(DownloadError, match=r"siglip/config\.json is missing"):
        locate("turbo")
    (snapshot / "siglip").mkdir()
    (snapshot / "siglip/config.json").write_text("{}")
    with pytest.raises(DownloadError, match=r"siglip/\*\.safetensors is missing"):
        locate("turbo")
    assert locate("turbo", weights=["transformer"]) == snapshot
    (snapshot / "siglip/model.safetensors").write_bytes(b"")
    assert locate("turbo") == snapshot


def test_a_repo_without_an_index_of_its_folders(tmp_path: Path) -> None:
    """mflux writes none, nor configs."""
    (tmp_path / "repo/transformer").mkdir(parents=True)
    index = {"weight_map": {"a": "0.safetensors", "b": "1.safetensors"}}
    (tmp_path / "repo/transformer/model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "repo/transformer/0.safetensors").write_bytes(b"")
    snapshot = _snapshot(tmp_path / "hub", tmp_path / "repo")
    with pytest.raises(DownloadError, match=r"transformer/1\.safetensors is missing"):
        locate("turbo")
    assert locate("turbo", weights=["vae"]) == snapshot
    (snapshot / "transformer/1.safetensors").write_bytes(b"")
    assert locate("turbo") == snapshot


def test_a_broken_index(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    (snapshot / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model_index\.json cannot be read"):
        locate("turbo")


def test_shards_without_an_index(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    snapshot = _snapshot(tmp_path / "hub", checkpoint("small"))
    _remove(snapshot / "vae/diffusion_pytorch_model.safetensors.index.json")
    with pytest.raises(ZImageError, match="no index that says"):
        ZImage.load("turbo")


def test_a_download_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    message = "Tongyi-MAI/Z-Image-Turbo cannot be downloaded: .* try again later: mlx-zimage downlo"
    with pytest.raises(DownloadError, match=message):
        ZImage.load("turbo", download=True)
