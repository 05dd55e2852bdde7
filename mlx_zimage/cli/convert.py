"""`convert` a checkpoint, and `verify` what was converted."""

import json as json_format
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ..convert import plan as conversion
from ..convert.plan import Plan
from .progress import JSON, ByteMeter
from .source import DOWNLOAD, OFFLINE, REVISION, bits, find

SOURCE = "A name (demo, turbo, base), a Hub repo id, a folder or a file."
OUT = "The folder to write."
QUANT = "Bits: 3, 4, 5, 6 or 8; or mxfp4, mxfp8, nvfp4."
ENCODER = "The same for the text encoder, where it is to have another than --q."
GROUP = "Weights that share a scale: 32, 64 (the default) or 128, for the bits that take it."
ONLY = "Write one part alone: transformer, text_encoder or vae."
WITH = "A file or folder with other parts, as a text encoder or a VAE; may be given again."
BASE = "Where files that are no whole checkpoint have the rest from; turbo unless given."
PLAN = "Print what would be written and how large it is, and write nothing."


def convert(
    source: Annotated[str, typer.Argument(help=SOURCE)],
    out: Annotated[Path | None, typer.Argument(help=OUT)] = None,
    q: Annotated[str | None, typer.Option("--q", help=QUANT)] = None,
    q_text_encoder: Annotated[str | None, typer.Option(help=ENCODER)] = None,
    group_size: Annotated[int | None, typer.Option(help=GROUP)] = None,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    only: Annotated[str | None, typer.Option(help=ONLY)] = None,
    beside: Annotated[list[Path] | None, typer.Option("--with", help=WITH)] = None,
    base: Annotated[str | None, typer.Option(help=BASE)] = None,
    plan: Annotated[bool, typer.Option("--plan", help=PLAN)] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    revision: Annotated[str | None, typer.Option(help=REVISION)] = None,
    download: Annotated[bool, typer.Option("--download", help=DOWNLOAD)] = False,
    offline: Annotated[bool, typer.Option("--offline", help=OFFLINE)] = False,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """Write a checkpoint in another precision, quantized or not."""
    if plan == (out is not None):
        raise typer.BadParameter("--plan writes nothing: give it, or OUT", param_hint="OUT")
    if force and plan:
        raise typer.BadParameter("it cannot act with --plan", param_hint="--force")
    planned = Plan.of(
        find(source, revision, download, offline, json),
        quantize=bits(q),
        text_encoder=bits(q_text_encoder),
        group_size=group_size,
        dtype=dtype,
        only=only,
        base=base,
        beside=beside or (),
    )
    if out is None:
        _show_plan(planned, json)
        return
    with ByteMeter(json) as meter, closing(conversion.convert(planned, out, force=force)) as events:
        for event in events:
            meter.show(event)
    print(json_format.dumps({"event": "converted", "folder": str(out)}) if json else out)


def verify(folder: Annotated[Path, typer.Argument(help="A folder that convert wrote.")]) -> None:
    """Hold a converted checkpoint against its manifest: hashes, shapes, finite numbers."""
    for name in conversion.verify(folder):
        print(f"{name}: right", flush=True)


def _show_plan(plan: Plan, as_json: bool) -> None:
    for part in plan.packings:
        count, size = plan.count(part), plan.size(part)
        facts = {"parameters": count, "bytes": size, "bits_per_weight": round(8 * size / count, 2)}
        if as_json:
            print(json_format.dumps({"event": "plan", "part": part, **facts}))
        else:
            bits = facts["bits_per_weight"]
            print(f"{part}: {count:,} parameters, {size / 1e9:.3f} GB, {bits} bits each")
    if not as_json:
        sizes = [plan.size(part) for part in plan.packings]
        print(
            f"in memory, weights alone: {sum(sizes) / 1e9:.3f} GB, or {max(sizes) / 1e9:.3f} GB "
            "with --memory staged"
        )
