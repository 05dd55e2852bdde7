"""The Hub, played by a small server on this machine."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_zimage import DownloadError, ZImage
from mlx_zimage.hub import download as downloading
from mlx_zimage.hub.download import Downloaded, download, look_up
from mlx_zimage.hub.locate import locate

from .hub_server import COMMIT, Hub, serving

WEIGHTS = "transformer/diffusion_pytorch_model-00003-of-00003.safetensors"  # the largest
DRAWN = {"width": 32, "height": 32, "steps": 1, "seed": 1}


@pytest.fixture
def hub(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """With files beside the checkpoint's own that no generation needs."""
    folder = tmp_path / "repository"
    shutil.copytree(checkpoint("small"), folder)
    (folder / "README.md").write_text("x" * 100)
    (folder / "assets").mkdir()
    (folder / "assets/picture.png").write_bytes(b"x" * 1000)
    (folder / "whole.safetensors").write_bytes(b"x" * 1000)
    shutil.copy(folder / WEIGHTS, folder / WEIGHTS.replace("model-", "model.fp16-"))
    with serving(folder) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield hub


def _fetched(hub: Hub) -> set[str]:
    return {
        p.split("/", 5)[5] for method, p, _ in hub.asked if method == "GET" and "/api/" not in p
    }


def test_only_what_is_needed(hub: Hub) -> None:
    remote = look_up("owner/model")
    names = {file.name for file in remote.files}
    assert WEIGHTS in names and "tokenizer/tokenizer.json" in names
    assert not {n for n in names if n.count("/") == 0} - {"model_index.json"}
    assert not any("fp16" in name or "assets" in name for name in names)
    assert remote.size == sum((hub.folder / name).stat().st_size for name in names)
    with pytest.raises(DownloadError, match="run: mlx-zimage download owner/model"):
        ZImage.load("owner/model")
    assert _fetched(hub) == set()
    model = ZImage.load("owner/model", download=True)
    assert _fetched(hub) == names
    model.generate("x", **DRAWN)


def test_events_tell_every_byte(hub: Hub) -> None:
    events = list(download("owner/model"))
    assert all(isinstance(event, Downloaded) for event in events)
    done = [event.done for event in events]
    total = look_up("owner/model").size
    assert done == sorted(done) and done[-1] == total
    assert {event.total for event in events} == {total}
    assert done.count(total) == 1


def test_here_already(hub: Hub) -> None:
    list(download("owner/model"))
    hub.asked.clear()
    hub.status = 503  # the network is not needed any more
    ZImage.load("owner/model", download=True)
    ZImage.load("owner/model", revision=COMMIT)
    assert hub.asked == []


def test_a_revision(hub: Hub) -> None:
    list(download("owner/model", "v1"))
    assert locate("owner/model", "v1").name == COMMIT
    with pytest.raises(DownloadError, match=r"download owner/model \(the"):
        locate("owner/model")
    with pytest.raises(DownloadError, match="has no revision 'v2'"):
        look_up("owner/model", "v2")


def test_cut_in_the_middle(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the file is asked for, not the whole."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 12)
    hub.cut[WEIGHTS] = 1 << 16
    list(download("owner/model"))
    ranges = [wanted for _, path, wanted in hub.asked if path.endswith(WEIGHTS) and wanted]
    assert ranges == [f"bytes={1 << 16}-"]
    ZImage.load("owner/model").generate("x", **DRAWN)


def test_stopped_and_begun_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow transfer ends soon after nobody follows it; whole files are kept, halves are not."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 12)
    events = download("owner/model")
    for event in events:
        hub.slow = 0.02
        if event.file == WEIGHTS:
            break
    stopped = time.monotonic()
    events.close()
    assert time.monotonic() - stopped < 1
    assert list(hub.folder.parent.rglob("*.incomplete")) == []
    with pytest.raises(DownloadError, match=rf"only in part \(it lacks {WEIGHTS}\), .* run: mlx-z"):
        locate("owner/model")
    hub.slow, before = 0, _fetched(hub)
    hub.asked.clear()
    list(download("owner/model"))
    assert _fetched(hub) & before == {WEIGHTS}
    locate("owner/model")


def test_wrong_hash(hub: Hub) -> None:
    """What came is thrown away, and comes again when the Hub is right."""
    hub.wrong.add(WEIGHTS)
    with pytest.raises(DownloadError, match="came with other bytes than the Hub names"):
        list(download("owner/model"))
    with pytest.raises(DownloadError, match="only in part"):
        locate("owner/model")
    hub.wrong.clear()
    list(download("owner/model"))
    ZImage.load("owner/model").generate("x", **DRAWN)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "needs a token: run hf auth login, or set HF_TOKEN"),
        (403, "needs a token"),
        (404, "there is no such repository"),
        (429, "the Hub answers 429; run later: mlx-zimage download owner/model"),
        (503, "the Hub answers 503; run later: mlx-zimage download owner/model"),
    ],
)
def test_refused(hub: Hub, status: int, text: str) -> None:
    hub.status = status
    with pytest.raises(DownloadError, match=text):
        ZImage.load("owner/model", download=True)


def test_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    with pytest.raises(DownloadError, match="needs a token"):
        look_up("owner/model")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    list(download("owner/model"))


def test_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(DownloadError, match=r"needs 0\.0 GB in .*, and 0\.0 GB are free"):
        list(download("owner/model"))
    assert _fetched(hub) == set()


FORMS = {
    "shards of both": (["a-1-of-3", "a-2-of-3", "a.fp16-1-of-2"], ["a-1-of-3", "a-2-of-3"]),
    "fp16 and bf16": (["a.fp16", "a.bf16"], ["a.bf16"]),
    "another form": (["a", "a.non_ema"], ["a"]),
    "fp16 alone": (["a.fp16-1-of-2", "a.fp16-2-of-2"], ["a.fp16-1-of-2", "a.fp16-2-of-2"]),
    "mflux": (["0", "1"], ["0", "1"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_once(name: str) -> None:
    there, wanted = ([f"vae/{x}.safetensors" for x in names] for names in FORMS[name])
    found = downloading._needed([*there, "vae/config.json", "x/y.json"])
    assert found == {*wanted, "vae/config.json"}


def test_a_repository_of_single_files(hub: Hub) -> None:
    for name in ("transformer", "text_encoder", "vae"):
        shutil.rmtree(hub.folder / name)
    with pytest.raises(DownloadError, match=r"hf download owner/model FILE"):
        look_up("owner/model")
