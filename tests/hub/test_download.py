"""The Hub, played by a small server on this machine."""

import errno
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlx_zimage import DownloadError, RequestError, ZImage
from mlx_zimage.events import Downloaded
from mlx_zimage.hub import download as downloading
from mlx_zimage.hub.download import download, fetch, fetching, look_up
from mlx_zimage.hub.locate import locate

from .hub_server import COMMIT, Hub, serving

WEIGHTS = "transformer/diffusion_pytorch_model-00003-of-00003.safetensors"  # the largest
DRAWN = {"width": 32, "height": 32, "steps": 1, "seed": 1}


@pytest.fixture
def hub(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """Serve a checkpoint with files that no generation needs."""
    folder = tmp_path / "repository"
    shutil.copytree(checkpoint("small"), folder)
    (folder / "README.md").write_text("x" * 100)
    (folder / "assets").mkdir()
    (folder / "assets/picture.png").write_bytes(b"x" * 1000)
    (folder / "whole.safetensors").write_bytes(b"x" * 1000)
    shutil.copy(folder / WEIGHTS, folder / WEIGHTS.replace("model-", "model.fp16-"))
    shutil.copytree(folder / "vae", folder / "vae_before")  # not named by model_index.json
    with serving(folder) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("mlx_zimage.hub.resume.WAIT_SECONDS", 0.001)
        yield hub


def _fetched(hub: Hub) -> set[str]:
    """The files whose bytes were requested."""
    paths = [p for method, p, _ in hub.requests if method == "GET" and "/api/" not in p]
    return {path.split("/", 5)[5] for path in paths}


def _drain(events: Generator[Downloaded, None, Path]) -> tuple[list[Downloaded], Path]:
    """All events, and the path that is returned."""
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def test_only_what_is_needed(hub: Hub, tmp_path: Path) -> None:
    remote = look_up("owner/model")
    names = {file.name for file in remote.files}
    assert WEIGHTS in names and "tokenizer/tokenizer.json" in names
    assert not {n for n in names if n.count("/") == 0} - {"model_index.json"}
    assert not any("fp16" in name or "assets" in name or "before" in name for name in names)
    assert remote.size == sum((hub.folder / name).stat().st_size for name in names)
    assert _fetched(hub) == {"model_index.json"}
    assert not (tmp_path / "cache").exists()
    with pytest.raises(DownloadError, match="run: mlx-zimage download owner/model"):
        ZImage.load("owner/model")
    assert _fetched(hub) == {"model_index.json"}
    model = ZImage.load("owner/model", download=True)
    assert _fetched(hub) == names
    model.generate("x", **DRAWN)


def test_the_way_from_a_source_to_a_path(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="is not on this machine"):
        _drain(fetching("owner/model", download=False))
    assert hub.requests == []
    events, path = _drain(fetching("owner/model", download=True))
    assert path == locate("owner/model") and path.name == COMMIT
    assert events[-1].done == events[-1].total > 0
    for allowed in (False, True):
        assert _drain(fetching("owner/model", download=allowed)) == ([], path)
    assert _drain(fetching(tmp_path, download=False)) == ([], tmp_path)
    with pytest.raises(RequestError, match="download is for the Hub"):
        _drain(fetching(tmp_path, download=True))


def test_a_folder_named_like_the_repo(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path wins over a repo id, but a download never answers with another folder."""
    remote = look_up("owner/model")
    monkeypatch.chdir(tmp_path)
    Path("owner/model").mkdir(parents=True)
    assert _drain(fetch(remote))[1].name == COMMIT
    assert locate("owner/model") == Path("owner/model")
    with pytest.raises(RequestError, match="is on this machine; there is nothing to download"):
        look_up("owner/model")


def test_components_of_the_future(hub: Hub) -> None:
    """A repo consists of the folders that its model_index.json names."""
    file = hub.folder / "model_index.json"
    added = {
        "siglip": ["transformers", "Siglip2VisionModel"],
        "siglip_processor": ["transformers", "Siglip2ImageProcessorFast"],
        "unused": [None, None],
    }
    file.write_text(json.dumps({**json.loads(file.read_text()), **added}))
    shutil.copytree(hub.folder / "vae", hub.folder / "siglip")
    (hub.folder / "siglip_processor").mkdir()
    (hub.folder / "siglip_processor/preprocessor_config.json").write_text("{}")
    list(download("owner/model"))
    folder = locate("owner/model")
    assert (folder / "siglip/config.json").is_file()
    assert (folder / "siglip_processor/preprocessor_config.json").is_file()
    assert not (folder / "vae_before").exists()


def test_a_repo_without_model_index(hub: Hub) -> None:
    """Its folders are those with a config and weights, or with weights of the usual names.

    Nothing tells an interrupted download from a complete one then, so the branch is known last.
    """
    (hub.folder / "model_index.json").unlink()
    (hub.folder / "transformer/config.json").unlink()
    (hub.folder / "loras").mkdir()
    (hub.folder / "loras/style.safetensors").write_bytes(b"x")
    names = {file.name for file in look_up("owner/model").files}
    folders = {"text_encoder", "tokenizer", "transformer", "scheduler", "vae", "vae_before"}
    assert {name.split("/")[0] for name in names} == folders
    hub.status_of[WEIGHTS] = 403
    with pytest.raises(DownloadError, match="needs a token"):
        list(download("owner/model"))
    with pytest.raises(DownloadError, match="not on this machine"):
        locate("owner/model")
    hub.status_of.clear()
    list(download("owner/model"))
    assert {f"{p.parent.name}/{p.name}" for p in locate("owner/model").glob("*/*")} == names


def test_a_broken_model_index(hub: Hub) -> None:
    (hub.folder / "model_index.json").write_text("{")
    with pytest.raises(DownloadError, match=r"its model_index\.json is broken"):
        look_up("owner/model")
    (hub.folder / "model_index.json").write_text('["vae"]')
    assert WEIGHTS in {file.name for file in look_up("owner/model").files}


def test_events_tell_every_byte(hub: Hub) -> None:
    events = list(download("owner/model"))
    assert all(isinstance(event, Downloaded) for event in events)
    done = [event.done for event in events]
    total = look_up("owner/model").size
    assert done == sorted(done) and done[-1] == total
    assert {event.total for event in events} == {total}
    assert done.count(total) == 1


def test_a_complete_download_needs_no_network(hub: Hub) -> None:
    list(download("owner/model"))
    hub.requests.clear()
    hub.status = 503
    ZImage.load("owner/model", download=True)
    ZImage.load("owner/model", revision=COMMIT)
    assert hub.requests == []


def test_a_complete_download_is_one_event(hub: Hub) -> None:
    list(download("owner/model"))
    events = list(download("owner/model"))
    assert [(event.file, event.done == event.total) for event in events] == [
        ("model_index.json", True)
    ]


def test_a_revision(hub: Hub) -> None:
    list(download("owner/model", "v1"))
    assert locate("owner/model", "v1").name == COMMIT
    with pytest.raises(DownloadError, match=r"download owner/model \(the"):
        locate("owner/model")
    with pytest.raises(DownloadError, match="has no revision 'v2'"):
        look_up("owner/model", "v2")


def _ranges(hub: Hub, name: str = WEIGHTS) -> list[str | None]:
    """The ranges in which a file's bytes were requested."""
    return [span for method, p, span in hub.requests if method == "GET" and p.endswith(name)]


def test_cut_in_the_middle(hub: Hub) -> None:
    """The remaining bytes of the file are requested, not all of them."""
    hub.cut[WEIGHTS] = 1 << 16
    list(download("owner/model"))
    assert _ranges(hub) == [None, f"bytes={1 << 16}-"]
    ZImage.load("owner/model").generate("x", **DRAWN)


def _kept(hub: Hub) -> list[Path]:
    return list(hub.folder.parent.rglob("*.incomplete"))


def _stop_within(hub: Hub, name: str) -> int:
    """Begin a download and stop it when `name` has begun; return the bytes that are kept."""
    events = download("owner/model")
    hub.slow = 0.02
    for event in events:
        if event.file == name:
            break
    events.close()
    hub.slow = 0.0
    return sum(file.stat().st_size for file in _kept(hub))


def test_stopped_and_resumed(hub: Hub) -> None:
    """A cancelled download ends soon; the next one fetches what is missing, to the byte."""
    kept = _stop_within(hub, WEIGHTS)
    assert hub.cut_off.wait(10)  # long before the file would have ended
    total = look_up("owner/model").size
    with pytest.raises(DownloadError, match=r"incomplete \(.* is missing\) on this machine; run: "):
        locate("owner/model")
    assert 0 < kept < total
    before, remote = _fetched(hub), look_up("owner/model")
    assert remote.left == sum(file.size or 0 for file in remote.missing()) - kept
    partial = [file.stat().st_size for file in _kept(hub)]
    complete = {file.size for file in remote.missing()}  # all bytes are there, and not checked yet
    hub.requests.clear()
    assert list(download("owner/model"))[-1].done == total
    begun = [int(span.strip("bytes=-")) for span in _ranges(hub, "") if span]
    assert sum(begun) == sum(size for size in partial if size not in complete)
    assert _fetched(hub) | before == {file.name for file in look_up("owner/model").files}
    assert _kept(hub) == []
    ZImage.load("owner/model").generate("x", **DRAWN)


def test_a_server_without_ranges(hub: Hub) -> None:
    """It sends all of the file again, which is used from where the earlier run stopped."""
    assert _stop_within(hub, WEIGHTS) > 0
    hub.ranges = False
    events = list(download("owner/model"))
    assert [event.done for event in events] == sorted(event.done for event in events)
    ZImage.load("owner/model").generate("x", **DRAWN)


def test_what_is_kept_is_damaged(hub: Hub) -> None:
    """It is thrown away, and the file fetched anew."""
    _stop_within(hub, WEIGHTS)
    for file in _kept(hub):
        data = bytearray(file.read_bytes())
        if data:
            data[0] ^= 1
            file.write_bytes(data)
    list(download("owner/model"))
    assert _ranges(hub)[-1] is None
    ZImage.load("owner/model").generate("x", **DRAWN)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_asks_to_come_back(hub: Hub, status: int) -> None:
    hub.stumbles[WEIGHTS] = [status, status]
    list(download("owner/model"))
    assert _ranges(hub) == [None] * 3
    shutil.rmtree(locate("owner/model").parents[1])
    hub.status_of[WEIGHTS] = status
    with pytest.raises(DownloadError, match=f"answers with status {status}; try again later"):
        list(download("owner/model"))


def test_several_files_at_once(hub: Hub) -> None:
    hub.slow = 0.01
    list(download("owner/model"))
    large = [p for method, p, _ in hub.requests if method == "GET" and p.endswith(".safetensors")]
    assert hub.most_at_once > 1 and len(large) == len({*large})


def test_two_runs_at_once(hub: Hub) -> None:
    """The second waits for the files that the first is fetching."""
    hub.slow = 0.005
    first, second = download("owner/model"), download("owner/model")
    next(first)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(lambda run: [*run], run) for run in (first, second)]
        assert all(run.result()[-1].done == look_up("owner/model").size for run in runs)
    assert _ranges(hub) == [None]
    ZImage.load("owner/model").generate("x", **DRAWN)


def test_wrong_hash(hub: Hub) -> None:
    """The file is removed, and fetched again when the Hub is right."""
    hub.wrong.add(WEIGHTS)
    with pytest.raises(DownloadError, match="arrived with another hash than the Hub lists"):
        list(download("owner/model"))
    with pytest.raises(DownloadError, match="incomplete"):
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
        (429, "the Hub answers with status 429; try again later: mlx-zimage download owner/model"),
        (503, "the Hub answers with status 503; try again later: mlx-zimage download owner/model"),
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
    remote, usage = look_up("owner/model"), shutil.disk_usage("/")
    hub.requests.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    message = r"needs 0\.0 GB in .*, and 0\.0 GB are free; make room, or set HF_HUB_CACHE"
    with pytest.raises(DownloadError, match=message):
        list(fetch(remote))
    assert hub.requests == []


def test_a_full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is not blamed on the Hub."""
    remote = look_up("owner/model")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlx_zimage.hub.resume._write", refuse)
    with pytest.raises(DownloadError, match=r"the cache cannot be written .*No space left"):
        list(fetch(remote))


FORMS = {
    "shards of both": (["a-1-of-3", "a-2-of-3", "a.fp16-1-of-2"], ["a-1-of-3", "a-2-of-3"]),
    "fp16 and bf16": (["a.fp16", "a.bf16"], ["a.bf16"]),
    "another form": (["a", "a.non_ema"], ["a"]),
    "fp16 alone": (["a.fp16-1-of-2", "a.fp16-2-of-2"], ["a.fp16-1-of-2", "a.fp16-2-of-2"]),
    "mflux": (["0", "1"], ["0", "1"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_weights_once(name: str) -> None:
    in_repo, wanted = ([f"vae/{x}.safetensors" for x in names] for names in FORMS[name])
    needed = downloading._needed([*in_repo, "vae/config.json", "x/y.json"], ["vae"])
    assert needed == {*wanted, "vae/config.json"}


def test_a_repository_of_single_files(hub: Hub) -> None:
    for name in ("transformer", "text_encoder", "vae"):
        shutil.rmtree(hub.folder / name)
    with pytest.raises(DownloadError, match=r"hf download owner/model FILE"):
        look_up("owner/model")
