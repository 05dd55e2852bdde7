"""The tools and resources that MCP clients see."""

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp_types import ResourceLink, ToolAnnotations
from PIL import Image as Pillow

from ... import __version__
from ..failures import Refusal
from .sources import read_source
from .studio import Studio

NAME = "mlx-zimage"
INSTRUCTIONS = (
    "Draws pictures with Z-Image on this machine. Describe what is to be seen in a sentence or "
    "two; a picture takes from seconds to minutes. The same seed and prompt give the same picture."
)
MOST = 4  # pictures of a call
PREVIEW_SIDE = 768  # pixels
PREVIEW_BYTES = 480_000  # of all previews of a result: clients refuse a megabyte of base64
QUALITY = 85
DRAWS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
Content = Image | str | ResourceLink


def make_server(studio: Studio, folders: Sequence[Path] = ()) -> MCPServer[None]:
    """Return an MCP server that draws in a studio; files are read from `folders` alone."""
    server: MCPServer[None] = MCPServer(
        NAME, version=__version__, instructions=INSTRUCTIONS, log_level="WARNING"
    )
    tools = Tools(studio, folders)
    draws: dict[str, Any] = {"annotations": DRAWS, "structured_output": False}
    server.tool(**draws)(tools.generate_image)
    server.tool(**draws)(tools.edit_image)
    server.tool(annotations=READS, structured_output=False)(tools.list_models)
    server.tool(**draws)(tools.cancel)
    server.resource("zimage://models", mime_type="application/json")(tools.models)
    server.resource("zimage://images/{id}", mime_type="image/png")(tools.image)
    return server


class Tools:
    """The tools of one studio, and the jobs that they have begun."""

    def __init__(self, studio: Studio, folders: Sequence[Path]):
        self._studio, self._folders = studio, folders
        self._jobs: set[str] = set()

    async def generate_image(
        self,
        prompt: str,
        context: Context[Any, Any],
        width: int | None = None,
        height: int | None = None,
        seed: int | None = None,
        steps: int | None = None,
        n: int = 1,
        negative_prompt: str | None = None,
        loras: list[dict[str, Any]] | None = None,
    ) -> list[Content]:
        """Draw one or up to four pictures from a description.

        Returns a small preview of each, its seed and request, and a link to the full file. Leave
        out what the user did not ask for: the model's defaults are good.
        """
        order = {"prompt": prompt, "width": width, "height": height, "seed": seed, "steps": steps}
        more = {"negative_prompt": negative_prompt, "loras": loras}
        return await self._draw({**order, **more, "count": _count(n)}, context)

    async def edit_image(
        self,
        picture: str,
        prompt: str,
        context: Context[Any, Any],
        strength: float | None = None,
        mask: str | None = None,
        seed: int | None = None,
        n: int = 1,
    ) -> list[Content]:
        """Change a picture; the prompt describes the whole of the result.

        `picture` is the id of a picture that was drawn, a data URL, or an allowed file. `strength`
        is how much is painted anew, 0 to 1. `mask` is a picture that is white where to repaint.
        """
        order: dict[str, Any] = {"prompt": prompt, "strength": strength, "seed": seed}
        try:
            for name, source in (("image", picture), ("mask", mask)):
                if source is not None:
                    read = read_source(source, name, self._studio, self._folders)
                    order[name] = await read
        except Refusal as refusal:
            raise ToolError(refusal.message) from refusal
        return await self._draw({**order, "count": _count(n)}, context)

    async def list_models(self) -> str:
        """Tell the model, its default size, its limits and the LoRAs that may be named."""
        return await self._models()

    async def cancel(self, context: Context[Any, Any], job: str | None = None) -> str:
        """Cancel pictures that are being drawn: one job, whose id its progress tells, or all.

        Over HTTP the job must be named, as clients there cannot be told apart.
        """
        if job is None and context.headers is not None:
            raise ToolError("name the job, which its progress tells: others draw here as well")
        chosen = [known for known in self._jobs if job in (None, known)]
        for known in chosen:
            await self._told(self._studio.cancel(known))
        return f"cancelled: {', '.join(chosen)}" if chosen else "nothing is being drawn"

    async def models(self) -> str:
        """Tell the model, its default size, its limits and the LoRAs that may be named."""
        return await self._models()

    async def image(self, id: str) -> bytes:
        """Return a picture's PNG file."""
        try:
            return await self._studio.picture(id)
        except Refusal as refusal:
            raise ResourceError(refusal.message) from refusal

    async def _models(self) -> str:
        return json.dumps({"models": [await self._told(self._studio.model())]}, ensure_ascii=False)

    async def _told(self, asked: Any) -> Any:
        """Wait for the studio's answer, and tell what it refuses in one sentence."""
        try:
            return await asked
        except Refusal as refusal:
            raise ToolError(refusal.message) from refusal

    async def _draw(self, order: Mapping[str, Any], context: Context[Any, Any]) -> list[Content]:
        """Draw an order, tell how far it is, and return the pictures."""
        given = {name: value for name, value in order.items() if value is not None}
        last: dict[str, Any] = {}
        try:
            async with aclosing(self._studio.draw(given)) as events:
                async for event in events:
                    self._jobs.add(event["job"])
                    last = event if event["type"] == "state" else last
                    await _report(event, int(given["count"]), context)
        except Refusal as refusal:
            raise ToolError(refusal.message) from refusal
        finally:
            self._jobs.discard(last.get("job", ""))
        if last.get("state") != "done":
            error = last.get("error") or {"message": "the server stopped"}
            raise ToolError(error["message"])
        return await self._result(last)

    async def _result(self, job: Mapping[str, Any]) -> list[Content]:
        """Return previews, then what the pictures are, then links to their files."""
        images = job["images"]
        files = [await self._told(self._studio.picture(image["id"])) for image in images]
        previews: list[Content] = [_preview(file, PREVIEW_BYTES // len(files)) for file in files]
        addresses = [await self._told(self._studio.address(image["id"])) for image in images]
        about = [
            {"id": image["id"], "file": address, "seed": image["seed"], "request": image["request"]}
            for image, address in zip(images, addresses, strict=True)
        ]
        told = {"pictures": about, "hint": job["hint"], "truncated": job["truncated"]}
        text = {name: value for name, value in told.items() if value}
        links: list[Content] = [
            ResourceLink(
                type="resource_link",
                uri=f"zimage://images/{image['id']}",
                name=f"{image['id']}.png",
                mime_type="image/png",
                size=len(file),
            )
            for image, file in zip(images, files, strict=True)
        ]
        return [*previews, json.dumps(text, ensure_ascii=False), *links]


def _count(n: int) -> int:
    if not 1 <= n <= MOST:
        raise ToolError(f"n must be 1 to {MOST}, not {n}")
    return n


async def _report(event: Mapping[str, Any], count: int, context: Context[Any, Any]) -> None:
    """Tell how far the job is, in steps of all its pictures."""
    if event["type"] == "step":
        total, done = event["total"] * count, event["total"] * event["picture"] + event["number"]
        message = f"job {event['job']}: step {event['number']} of {event['total']}"
        await context.report_progress(done, total, message)


def _preview(png: bytes, limit: int) -> Image:
    """Return a picture small enough for a chat."""
    with Pillow.open(io.BytesIO(png), formats=("PNG",)) as image:
        small = image.convert("RGB")
    side = PREVIEW_SIDE
    while True:
        small.thumbnail((side, side), Pillow.Resampling.LANCZOS)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY)
        if file.tell() <= limit:
            return Image(data=file.getvalue(), format="jpeg")
        side = side * 3 // 4
