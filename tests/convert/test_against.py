"""Folders held against published files, from the Hub and from lists."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_zimage import CheckpointError, DownloadError, RequestError
from mlx_zimage.convert.against import list_published, verify_published
from mlx_zimage.hub.download import download
from mlx_zimage.hub.locate import locate
from mlx_zimage.hub.published import Published
from tests.hub.hub_server import COMMIT, Hub, serving

CONSTANTS = "huggingface_hub.constants"
WEIGHTS = "vae/diffusion_pytorch_model-00001-of-00003.safetensors"
SHARD = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"


@pytest.fixture
def hub(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    shutil.copytree(checkpoint("small"), tmp_path / "repository")
    (tmp_path / "repository/README.md").write_text("x")
    with serving(tmp_path / "repository") as hub:
        monkeypatch.setattr(f"{CONSTANTS}.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{CONSTANTS}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the published model, without its README."""
    shutil.copytree(checkpoint("small"), tmp_path / "copy")
    return tmp_path / "copy"


def _states(folder: Path, published: Published) -> tuple[dict[str, str], str]:
    """What is not as published, by name, and the error at the end."""
    states = {}
    try:
        for file in verify_published(folder, published):
            if file.state != "ok":
                states[file.name] = file.reason
    except CheckpointError as error:
        return states, str(error)
    return states, ""


def test_a_good_copy(hub: Hub, folder: Path) -> None:
    published = list_published("owner/model")
    assert (published.source, published.revision) == ("owner/model", COMMIT)
    assert published.license == "apache-2.0"
    assert {file.algorithm for file in published.files} == {"sha256", "git_sha1"}
    assert _states(folder, published) == ({}, "")


def _spoil(folder: Path) -> None:
    """One file of each kind: gone, cut short, one bit of a weight, one letter of a config."""
    (folder / WEIGHTS).unlink()
    with (folder / SHARD).open("r+b") as file:
        file.truncate(1000)
    last = sorted(folder.glob("text_encoder/*.safetensors"))[-1]
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("3.0", "6.0"))
    (folder / "vae/other.json").write_text("{}")


def test_what_is_wrong(hub: Hub, folder: Path) -> None:
    _spoil(folder)
    states, error = _states(folder, list_published("owner/model", "v1"))
    last = max(name for name in states if name.startswith("text_encoder"))
    assert states == {
        WEIGHTS: "missing",
        SHARD: f"damaged: 1,000 bytes, {(hub.folder / SHARD).stat().st_size:,} are published",
        last: "changed: its SHA256 is not the published one",
        "scheduler/scheduler_config.json": "changed: its GIT_SHA1 is not the published one",
        "vae/other.json": "extra: nothing is published by this name",
    }
    assert error.startswith("4 of 19 files are not those of owner/model: 2 changed, 1 damaged, 1 ")


def test_a_list_needs_no_network(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved as JSON, it tells the same; nothing is asked."""
    published = list_published("owner/model")
    published.save(tmp_path / "list.json")
    _spoil(folder)
    expected = _states(folder, published)
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert list_published(tmp_path / "list.json") == published
    assert _states(folder, list_published(str(tmp_path / "list.json"))) == expected
    assert hub.requests == []
    with pytest.raises(
        DownloadError, match=r"cannot be asked: HF_HUB_OFFLINE is set; save the list"
    ):
        list_published("owner/model")


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_sums(folder: Path, tmp_path: Path, algorithm: str) -> None:
    """As md5sum and sha256sum print them, and the official manifest has them."""
    lines = ["# Generated", ""]
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.new(algorithm, file.read_bytes()).hexdigest()
        lines.append(f"{digest}  {file.relative_to(folder).as_posix()}")
    (tmp_path / "manifest.txt").write_text("\n".join(lines))
    published = list_published(tmp_path / "manifest.txt")
    assert _states(folder, published) == ({}, "")
    _spoil(folder)
    states, error = _states(folder, published)
    kinds = sorted(reason.split(":")[0] for reason in states.values())
    assert kinds == ["changed"] * 3 + ["extra", "missing"]
    assert error.startswith("4 of 19 files are not those of manifest.txt: 3 changed, 1 missing")


def test_the_official_list() -> None:
    """The publisher's own manifest, where it lies beside the project."""
    official = Path(__file__).parents[3] / "shared/reference/official/turbo"
    if not official.is_dir():
        pytest.skip("needs shared/reference/official")
    published = list_published(official / "manifest.txt")
    assert len(published.files) == 16
    states = {file.name: file.state for file in _until_error(official, published)}
    right = [name for name, state in states.items() if state == "ok"]
    assert len(right) == 7 and "transformer/config.json" in right
    assert "changed" not in states.values()


def _until_error(folder: Path, published: Published) -> Iterator:  # type: ignore[type-arg]
    try:
        yield from verify_published(folder, published)
    except CheckpointError:
        return


def test_a_damaged_file_of_the_cache_is_fetched_again(hub: Hub) -> None:
    """The message names the bytes' place, and a download replaces what has another size."""
    list(download("owner/model"))
    snapshot = locate("owner/model")
    assert _states(snapshot, list_published("owner/model", folder=snapshot)) == ({}, "")
    paths = [path for _, path, _ in hub.requests if "/api/" in path]
    assert paths[-1].endswith(f"/revision/{COMMIT}")
    blob = (snapshot / SHARD).resolve()
    blob.write_bytes(blob.read_bytes()[:1000])
    states, _ = _states(snapshot, list_published("owner/model"))
    assert states[SHARD].endswith(f"({blob})")
    (snapshot / SHARD).unlink()
    list(download("owner/model"))
    assert _states(snapshot, list_published("owner/model")) == ({}, "")


def test_another_folder(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    published = list_published("owner/model")
    assert "holds no file of owner/model" in _states(tmp_path / "empty", published)[1]
    assert "is no folder" in _states(tmp_path / "nothing", published)[1]


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", '{"files": []}', '{"files": {"../x": {}}}', "hello", "\x00", "12 x\n" * 3],
)
def test_no_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(RequestError, match="must list files: JSON that verify --save wrote"):
        list_published(tmp_path / "list")
    (tmp_path / "list").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="cannot be read"):
        list_published(tmp_path / "list")


def test_hashes_of_an_unknown_kind(folder: Path, tmp_path: Path) -> None:
    """A size alone is compared, and said to be."""
    size = (folder / "model_index.json").stat().st_size
    text = json.dumps({"files": {"model_index.json": {"size": size, "crc": "1"}}})
    (tmp_path / "list.json").write_text(text)
    files = [*verify_published(folder, list_published(tmp_path / "list.json"))]
    assert [f.reason for f in files if f.name == "model_index.json"] == ["ok by its size"]
