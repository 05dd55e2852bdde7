"""The page's files: compressed, asked for again, sent at once, and nothing else of the disk."""

import gzip
import os
import socket
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from mlx_zimage.server.app import PAGE
from mlx_zimage.server.assets import Assets
from mlx_zimage.server.run import bind
from mlx_zimage.server.settings import Settings


def asked(**headers: str) -> Request:
    sent = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "headers": sent})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page" / "i18n").mkdir(parents=True)
    (tmp_path / "page" / "app.js").write_text("let a = 1;\n" * 50)
    (tmp_path / "page" / "i18n" / "en.json").write_text("{}")
    (tmp_path / "page" / "notes.txt").write_text("no")
    (tmp_path / "secret.js").write_text("no")
    return tmp_path / "page"


def test_a_file_is_compressed_for_those_who_take_it(folder: Path) -> None:
    assets = Assets(folder)
    plain = assets.answer("app.js", asked())
    packed = assets.answer("app.js", asked(accept_encoding="gzip, br"))
    assert plain.body == (folder / "app.js").read_bytes() == gzip.decompress(packed.body)
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert plain.headers["content-type"] == "text/javascript; charset=utf-8"
    assert assets.answer("i18n/en.json", asked()).body == b"{}"


def test_a_known_file_is_not_sent_again_until_it_changes(folder: Path) -> None:
    assets = Assets(folder)
    tag = assets.answer("app.js", asked()).headers["etag"]
    again = assets.answer("app.js", asked(if_none_match=f'"x", {tag}'))
    assert (again.status_code, again.body) == (304, b"")
    (folder / "app.js").write_text("let a = 2;")
    os.utime(folder / "app.js", ns=(1, 1))
    changed = assets.answer("app.js", asked(if_none_match=tag))
    assert (changed.status_code, changed.body) == (200, b"let a = 2;")


@pytest.mark.parametrize(
    "name", ["", ".", "../secret.js", "i18n/../../secret.js", "/etc/passwd", "notes.txt", "i18n"]
)
def test_nothing_else_is_given(folder: Path, name: str) -> None:
    with pytest.raises(HTTPException) as raised:
        Assets(folder).answer(name, asked())
    assert raised.value.status_code == 404


def test_answers_are_not_held_back_until_the_client_acknowledges(tmp_path: Path) -> None:
    settings = Settings(source="demo", port=0, output_folder=tmp_path)
    with bind(settings) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_every_file_of_the_page_has_a_type_and_modules_are_short() -> None:
    files = [path for path in PAGE.rglob("*") if path.is_file()]
    assert {path.relative_to(PAGE).as_posix() for path in files} == {*Assets(PAGE)._paths}
    for path in files:
        if path.suffix in (".js", ".html"):  # the stylesheet is one, as it is one cascade
            assert len(path.read_text().splitlines()) <= 350, path
