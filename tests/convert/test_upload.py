"""Uploads, to a small server on this machine that speaks the Hub's protocol."""

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from mlx_zimage import (
    Conversion,
    DownloadError,
    RequestError,
    Uploaded,
    check_upload,
    convert_checkpoint,
    upload_checkpoint,
    verify_checkpoint,
)
from tests.hub.hub_server import Hub, serving

# huggingface_hub's, to its own HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
REPO = "owner/new"
CONSTANTS = "huggingface_hub.constants"


@pytest.fixture(scope="module")
def written(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "out"
    for _ in convert_checkpoint(Conversion.plan(checkpoint("even"), quantize=4), out, title=REPO):
        pass
    return out


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    (tmp_path / "repository").mkdir()
    with serving(tmp_path / "repository") as hub:
        monkeypatch.setattr(f"{CONSTANTS}.ENDPOINT", hub.url)
        monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        hub.token = "hf_secret"
        yield hub


def _drain(events: Generator[Uploaded, None, str]) -> tuple[list[Uploaded], str]:
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def test_upload(hub: Hub, written: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every file arrives as it is, with one commit; what comes back verifies."""
    events, url = _drain(upload_checkpoint(written, REPO))
    assert url == f"{hub.url}/{REPO}"
    done = [event.done for event in events]
    sizes = [file.stat().st_size for file in written.rglob("*") if file.is_file()]
    assert done == sorted(done) and done[-1] == events[-1].total == sum(sizes)
    assert [p for m, p, _ in hub.requests if p.endswith("/commit/main")] == [
        f"/api/models/{REPO}/commit/main"
    ]
    back = tmp_path / "back"
    for name, data in hub.repos[REPO].items():
        if name != ".gitattributes":
            (back / name).parent.mkdir(parents=True, exist_ok=True)
            (back / name).write_bytes(data)
    assert "transformer" in [*verify_checkpoint(back)]
    assert capfd.readouterr() == ("", "")  # no bars of the library's own


def test_again(hub: Hub, written: Path) -> None:
    """Large files that are there are not sent twice."""
    _drain(upload_checkpoint(written, REPO))
    hub.objects = {key: hub.objects[key] for key in hub.objects}
    before = len(hub.requests)
    hub.repos[REPO].clear()
    _drain(upload_checkpoint(written, REPO))
    assert "PUT" not in [method for method, *_ in hub.requests[before:]]
    assert len(hub.repos[REPO]) == len([f for f in written.rglob("*") if f.is_file()])


def test_a_repo_of_something_else(hub: Hub, written: Path) -> None:
    hub.repos[REPO] = {"unet.safetensors": b"x"}
    with pytest.raises(RequestError, match=r"owner/new holds unet\.safetensors, which this check"):
        _drain(upload_checkpoint(written, REPO))
    assert hub.repos[REPO] == {"unet.safetensors": b"x"}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "a token that may write there is needed: run hf auth login, or set HF_TOKEN; .* hf "),
        (403, "a token that may write there is needed"),
        (500, "the Hub answers with status 500; .*out is complete: hf upload owner/new "),
    ],
)
def test_refused(hub: Hub, written: Path, status: int, message: str) -> None:
    hub.refused = status
    with pytest.raises(DownloadError, match=message) as caught:
        _drain(upload_checkpoint(written, REPO))
    assert "\n" not in str(caught.value) and hub.repos == {}


def test_a_wrong_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(DownloadError, match=r"nothing was uploaded to owner/new: a token that may"):
        check_upload(REPO)


def test_no_token_and_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(f"{CONSTANTS}.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(DownloadError, match="a token that may write there is needed"):
        check_upload(REPO)
    monkeypatch.setattr(f"{CONSTANTS}.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set; unset it"):
        check_upload(REPO)
    for name in ("new", "owner/new/x", "../x", ""):
        with pytest.raises(RequestError, match="goes to a Hub repo id"):
            check_upload(name)


def test_a_folder_without_a_manifest(hub: Hub, written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "out")
    (tmp_path / "out/mlx_zimage.json").write_text("{}")
    with pytest.raises(RequestError, match="lists no files to upload"):
        _drain(upload_checkpoint(tmp_path / "out", REPO))
    assert hub.repos == {}
