"""MCP's tools, with the official client: in memory, over HTTP, over stdio."""

import asyncio
import base64
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcp import Client, StdioServerParameters
from PIL import Image

from mlx_zimage import ZImage
from mlx_zimage.server.failures import Refusal
from mlx_zimage.server.mcp.remote import RemoteStudio
from mlx_zimage.server.mcp.run import own
from mlx_zimage.server.mcp.tools import PREVIEW_BYTES, _preview, make_server
from mlx_zimage.server.settings import Settings

from .conftest import SMALL, Running

ROOT = Path(__file__).parents[2]
TINY = {**SMALL, "seed": 7}
Opened = Callable[..., Any]


@asynccontextmanager
async def in_memory(folder: Path, *allowed: Path) -> AsyncIterator[Client]:
    settings = Settings(source="demo", output_folder=folder / "pictures")
    async with own(settings) as studio, Client(make_server(studio, allowed)) as client:
        yield client


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def parts(result: Any) -> tuple[list[Any], dict[str, Any], list[Any]]:
    """Return a result's previews, what it tells, and its links."""
    assert not result.is_error, result.content
    images = [part for part in result.content if part.type == "image"]
    (text,) = [part.text for part in result.content if part.type == "text"]
    links = [part for part in result.content if part.type == "resource_link"]
    return images, json.loads(text), links


async def _draws(client: Client) -> None:
    told: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append(done)
        assert total == 4
        assert message is not None
        assert "of 2" in message

    arguments = {**TINY, "steps": 2, "n": 2}
    result = await client.call_tool("generate_image", arguments, progress_callback=progress)
    images, about, links = parts(result)
    assert told  # what happened before a follower came is not told to it
    assert told == sorted({*told} & {1, 2, 3, 4})
    assert len(images) == len(links) == 2
    assert [picture["seed"] for picture in about["pictures"]] == [7, 8]
    read: Any = await client.read_resource(links[0].uri)
    file = base64.b64decode(read.contents[0].blob)
    expected = ZImage.load("demo").generate(**{**TINY, "steps": 2}).image
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), np.asarray(expected))
    assert Image.open(io.BytesIO(base64.b64decode(images[0].data))).size == (64, 64)


def test_in_memory(tmp_path: Path) -> None:
    async def test() -> None:
        async with in_memory(tmp_path) as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}
            assert tools == {"generate_image", "edit_image", "list_models", "cancel"}
            await _draws(client)
            models = await client.call_tool("list_models", {})
            assert json.loads(models.content[0].text)["models"][0]["name"] == "demo"  # type: ignore[union-attr]
            resource: Any = await client.read_resource("zimage://models")
            assert json.loads(resource.contents[0].text)["models"][0]["width"] == 128

    run(test)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_over_http(server: Running, mode: Any) -> None:
    async def test() -> None:
        async with Client(f"{server.url}/mcp/", mode=mode) as client:
            await _draws(client)

    run(test)


def test_on_a_server_that_runs(server: Running) -> None:
    async def test() -> None:
        studio = RemoteStudio(server.url)
        async with Client(make_server(studio)) as client:
            await _draws(client)
            models = await client.call_tool("list_models", {})
            assert json.loads(models.content[0].text)["models"][0]["name"] == "demo"  # type: ignore[union-attr]
        await studio.close()

    run(test)


def test_no_server_answers() -> None:
    async def test() -> None:
        studio = RemoteStudio("http://127.0.0.1:9")
        async with Client(make_server(studio)) as client:
            result = await client.call_tool("generate_image", TINY)
            assert result.is_error
            assert "no server answers at http://127.0.0.1:9" in result.content[0].text  # type: ignore[union-attr]
        await studio.close()

    run(test)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("generate_image", {"prompt": "x", "n": 5}, "n must be 1 to 4"),
        ("generate_image", {"prompt": "x", "width": 60}, "width must be a multiple of 16"),
        ("generate_image", {}, "prompt"),
        ("generate_image", {"prompt": "x", "loras": [{"name": "../x"}]}, "no LoRA folder"),
        ("edit_image", {"prompt": "x", "picture": "/etc/hostname"}, "a folder that --allow-dir"),
        ("edit_image", {"prompt": "x", "picture": "~/x.png"}, "a folder that --allow-dir"),
        ("edit_image", {"prompt": "x", "picture": "a\0b"}, "a folder that --allow-dir"),
        ("edit_image", {"prompt": "x", "picture": "0" * 16}, "there is no such picture"),
        ("edit_image", {"prompt": "x", "picture": "data:image/png;base64,AAAA"}, "a whole PNG"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, tool: str, arguments: dict[str, Any], message: str
) -> None:
    async def test() -> None:
        async with in_memory(tmp_path) as client:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert message in result.content[0].text  # type: ignore[union-attr]

    run(test)


def test_pictures_are_changed_from_allowed_folders_alone(tmp_path: Path) -> None:
    async def test() -> None:
        allowed, outside = tmp_path / "allowed", tmp_path / "outside.png"
        allowed.mkdir()
        picture = Image.new("RGB", (64, 64), (34, 85, 204))
        for path in (outside, allowed / "in.png"):
            picture.save(path)
        mask = Image.new("L", (64, 64))
        mask.paste(255, (32, 0, 64, 64))
        mask.save(allowed / "mask.png")
        os.symlink(outside, allowed / "link.png")
        async with in_memory(tmp_path, allowed) as client:
            fields = {"prompt": "a red circle", "seed": 1}
            files = {"picture": str(allowed / "in.png"), "mask": str(allowed / "mask.png")}
            _, about, links = parts(await client.call_tool("edit_image", {**fields, **files}))
            read: Any = await client.read_resource(links[0].uri)
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(read.contents[0].blob))))
            assert (pixels[:, :24] == (34, 85, 204)).all()
            again = {**fields, "picture": about["pictures"][0]["id"], "strength": 0.5}
            assert parts(await client.call_tool("edit_image", again))
            for path in ("link.png", "../outside.png", "."):
                refused = await client.call_tool(
                    "edit_image", {**fields, "picture": str(allowed / path)}
                )
                assert "--allow-dir" in refused.content[0].text  # type: ignore[union-attr]

    run(test)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["by a tool", "by a tool, http", "http", "remote"])
def test_a_call_that_is_given_up_cancels_its_job(
    serve: Callable[..., Any], where: str, tmp_path: Path
) -> None:
    with serve() as running:

        async def test() -> None:
            told = asyncio.Queue[str]()

            async def progress(done: float, total: float | None, message: str | None) -> None:
                told.put_nowait(message or "")

            remote = RemoteStudio(running.url)
            url = f"{running.url}/mcp/"
            async with Client(url if "http" in where else make_server(remote)) as client:
                call = asyncio.ensure_future(
                    client.call_tool(
                        "generate_image", {**TINY, "steps": 1000}, progress_callback=progress
                    )
                )
                first = await told.get()
                if where == "by a tool":
                    result = await client.call_tool("cancel", {})
                    assert "cancelled: " in result.content[0].text  # type: ignore[union-attr]
                    assert (await call).is_error
                elif where == "by a tool, http":
                    refused = await client.call_tool("cancel", {})
                    assert refused.is_error and not call.done()
                    match = re.match(r"job (\w+): step", first)
                    assert match is not None
                    assert not (await client.call_tool("cancel", {"job": match[1]})).is_error
                    assert (await call).is_error
                else:
                    call.cancel()
                    await asyncio.wait([call])
            await remote.close()

        run(test)
        (job,) = running.ask("GET", "/api/jobs").json["jobs"]
        for event in running.events(job["events"]):
            job = event if event["type"] == "state" else job
        assert job["state"] == "cancelled"


def test_others_may_not_ask(server: Running) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
    ):
        assert server.ask("POST", "/mcp/", body, headers).status == 403


@pytest.mark.slow
def test_previews_stay_small() -> None:
    noise = Image.effect_noise((2048, 1024), 200).convert("RGB")
    file = io.BytesIO()
    noise.save(file, "PNG")
    for count in (1, 4):
        preview = _preview(file.getvalue(), PREVIEW_BYTES // count)
        assert preview.data is not None
        assert len(preview.data) * count * 4 / 3 < 700_000
        with Image.open(io.BytesIO(preview.data)) as image:
            assert max(image.size) <= 768
            assert image.width == 2 * image.height


def test_a_remote_servers_refusals_are_told(serve: Callable[..., Any]) -> None:
    with serve(token="0123456789abcdef") as running:

        async def test() -> None:
            studio = RemoteStudio(running.url, "wrong")
            with pytest.raises(Refusal, match="needs its token"):
                await studio.model()
            await studio.close()
            studio = RemoteStudio(running.url, "0123456789abcdef")
            assert (await studio.model())["name"] == "demo"
            await studio.close()

        run(test)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--model", "demo"], ["--server"]])
def test_over_stdio(server: Running, tmp_path: Path, options: list[str]) -> None:
    """Draws as an app does, which starts the command with a bare environment."""
    more = [*options, server.url] if options == ["--server"] else options
    folder = ["--output-folder", str(tmp_path)]
    command = [str(ROOT / "mlx_zimage_cli.py"), "mcp", *more, *folder]
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    # Products of another number of threads round differently: one level of a picture may differ.
    threads = "OPENBLAS_NUM_THREADS"
    environment |= {threads: os.environ[threads]} if threads in os.environ else {}

    async def test() -> None:
        parameters = StdioServerParameters(
            command=sys.executable, args=command, env=environment, cwd=str(tmp_path)
        )
        async with Client(parameters) as client:
            await _draws(client)

    run(test)
