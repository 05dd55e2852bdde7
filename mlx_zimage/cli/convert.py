"""`convert` a checkpoint."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import (
    Conversion,
    check_output,
    check_reportable,
    check_upload,
    convert_checkpoint,
    measure_conversion,
    upload_checkpoint,
)
from . import options as o
from . import values
from .models import Choice, agreed, find, returned, usage
from .parsing import UsageError
from .progress import Reporter, reporter

HINT = (
    "--calibrate would halve the error of these weights; for the full model it takes about "
    "10 minutes on an M-series Max and 30 on a base chip, by calculation"
)
Source = Annotated[
    str, typer.Argument(help=f"{o.MODELS}.", metavar="SOURCE", rich_help_panel="Files")
]
Out = Annotated[
    Path | None,
    typer.Argument(help="The folder to write.", metavar="OUT", rich_help_panel="Files"),
]
QuantizeEncoder = Annotated[
    str | None,
    typer.Option(
        help="The same for the text encoder alone. Default: as --q.",
        metavar="BITS",
        rich_help_panel="Weights",
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        "--q",
        "-q",
        help="Quantize to 3, 4, 5, 6 or 8 bits, or to mxfp4, mxfp8 or nvfp4; to 2 with "
        "--calibrate. Default: as they are stored.",
        metavar="BITS",
        rich_help_panel="Weights",
    ),
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="Round weights by what the model computes with: half the error, same size and speed.",
        rich_help_panel="Weights",
    ),
]
Mixed = Annotated[
    str | None,
    typer.Option(
        help="Calibrate, with bits for each of the transformer's layers: 3.5 in the mean, or 3GB.",
        metavar="BITS|SIZE",
        rich_help_panel="Weights",
    ),
]
Rotate = Annotated[
    bool,
    typer.Option(
        "--rotate",
        help="With a Hadamard transform before each layer where it pays; for 2 and 3 bits.",
        rich_help_panel="Weights",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Prompts to calibrate with, one a line. Default: a list that comes with the program.",
        metavar="FILE",
        rich_help_panel="Weights",
    ),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Measure each block's error against the source, print it and write it to this .json "
        "file.",
        metavar="FILE",
        rich_help_panel="Files",
    ),
]
Group = Annotated[
    int | None,
    typer.Option(
        help="Weights that share a scale: 32, 64 (default) or 128; with a number of bits.",
        metavar="N",
        rich_help_panel="Weights",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Type of the weights that are not quantized: bfloat16, float16 or float32.",
        metavar="TYPE",
        rich_help_panel="Weights",
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        help="Write one component alone: transformer, text_encoder or vae.",
        metavar="NAME",
        rich_help_panel="Files",
    ),
]
With = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        help="A file or folder with other components, such as a text encoder; repeatable.",
        metavar="PATH",
        rich_help_panel="Files",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint that completes files which are not a full one. Default: turbo.",
        metavar="MODEL",
        rich_help_panel="Files",
    ),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        help="Write a folder that another program loads: mlx-vlm, mflux or diffusers.",
        metavar="PROGRAM",
        rich_help_panel="Files",
    ),
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        help="A LoRA to merge into the weights, with its scale; repeatable.",
        metavar="FILE[:SCALE]",
        rich_help_panel="Weights",
    ),
]
Upload = Annotated[
    str | None,
    typer.Option(
        help="Publish the result as this Hub repo (owner/name), after asking.",
        metavar="REPO",
        rich_help_panel="Files",
    ),
]
Yes = Annotated[
    bool,
    typer.Option("--yes", help="Publish without asking.", rich_help_panel="Files"),
]
Plan = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Print what would be written and how large it is, and write nothing.",
        rich_help_panel="Files",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace OUT if it exists.", rich_help_panel="Files"),
]


def convert(
    source: Source,
    out: Out = None,
    plan: Plan = False,
    force: Force = False,
    only: Only = None,
    beside: With = None,
    base: Base = None,
    target: For = None,
    upload: Upload = None,
    yes: Yes = False,
    q: Quantize = None,
    q_text_encoder: QuantizeEncoder = None,
    group_size: Group = None,
    calibrate: Calibrate = False,
    mixed: Mixed = None,
    rotate: Rotate = False,
    prompts: Prompts = None,
    report_file: ReportFile = None,
    dtype: Dtype = "bfloat16",
    lora: Loras = None,
    lora_folder: o.LoraFolder = None,
    revision: o.Revision = None,
    download: o.Download = False,
    offline: o.Offline = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
    version: o.Version = False,
) -> None:
    """Write a checkpoint in another precision.

    The command `verify FOLDER` checks what was written.
    """
    _check_outputs(out, plan, force, upload, yes, offline)
    with closing(reporter(json, quiet)) as report:
        with usage():
            path = find(Choice(source, revision, download, offline), report)
            conversion = Conversion.plan(
                path,
                quantize=values.bits(q),
                text_encoder=values.bits(q_text_encoder),
                group_size=group_size,
                dtype=dtype,
                only=only,
                base=base,
                beside=beside or (),
                calibrate=calibrate,
                mixed=mixed,
                rotate=rotate,
                prompts=prompts,
                target=target,
                loras=lora or (),
                lora_folder=lora_folder,
                download=download,
            )
            if report_file is not None:
                check_reportable(conversion)
                check_output(report_file, ".json")
        if out is None:
            _show_plan(conversion, report)
            return
        if conversion.calibration is None and q is not None and re.fullmatch("[3-6]", q):
            report.note(HINT)
        if upload is not None:
            _agree(conversion, upload, yes, report)
        _write(conversion, out, force, upload, report)
        if report_file is not None:
            _measure(conversion, out, report_file, report)
        report.result(str(out), "converted", folder=str(out))
        if upload is not None:
            url = returned(upload_checkpoint(out, upload), report.event)
            report.result(url, "uploaded", url=url)


def _check_outputs(
    out: Path | None, plan: bool, force: bool, upload: str | None, yes: bool, offline: bool
) -> None:
    """Refuse options about what is written that do not go together."""
    if out is None and not plan:
        raise UsageError("Missing argument 'OUT': the folder to write")
    if plan and (force or upload or out is not None):
        needless = "--force" if force else "--upload" if upload else "OUT"
        raise UsageError(f"--plan writes nothing; leave out {needless}")
    if yes and upload is None:
        raise UsageError("--yes is for --upload; leave it out")
    if upload is not None and offline:
        raise UsageError("--upload and --offline exclude each other")


def _write(
    conversion: Conversion, out: Path, force: bool, title: str | None, report: Reporter
) -> None:
    """Write the conversion; say after Ctrl-C how to go on."""
    try:
        returned(convert_checkpoint(conversion, out, force=force, title=title), report.event)
    except KeyboardInterrupt:
        if conversion.calibration is not None:
            report.warn("stopped; what is calibrated is kept, and the same command goes on")
        raise


def _measure(conversion: Conversion, out: Path, file: Path, report: Reporter) -> None:
    errors = returned(measure_conversion(conversion, out), report.event)
    errors.save(file)
    errors.record(out)
    report.result(errors.table, "report", **errors.to_dict())


def _agree(conversion: Conversion, repo: str, yes: bool, report: Reporter) -> None:
    """Go on only where a person wants the result published, and a token allows it."""
    what = f"{conversion.total / 1e9:.2f} GB to {repo} on the Hub, for everybody to see"
    if not yes and not agreed(f"Upload {what}?", report):
        raise UsageError(f"--upload publishes {what}; give --yes to do so without being asked")
    with usage():
        check_upload(repo)


def _show_plan(conversion: Conversion, report: Reporter) -> None:
    sizes = [conversion.size(name) for name in conversion.components]
    for name, size in zip(conversion.components, sizes, strict=True):
        count = conversion.count(name)
        bits = round(8 * size / count, 2)
        report.result(
            f"{name}: {count:,} parameters, {size / 1e9:.3f} GB, {bits} bits each",
            "plan",
            component=name,
            parameters=count,
            bytes=size,
            bits_per_weight=bits,
        )
        if conversion.calibration is not None and name in conversion.calibration.rooms:
            _show_bits(name, conversion.packings[name], report)
    total, largest = sum(sizes), max(sizes)
    report.result(
        f"in memory, weights alone: {total / 1e9:.3f} GB, or {largest / 1e9:.3f} GB with "
        "--memory staged",
        "total",
        bytes=total,
        largest=largest,
    )


def _show_bits(name: str, packings: Mapping[str, Any], report: Reporter) -> None:
    """Show what each layer is expected to get, by its kind."""
    kinds: dict[str, Counter[int]] = defaultdict(Counter)
    for path, packing in packings.items():
        parts = [part for part in path.split(".") if not part.isdigit()]
        kinds[f"{parts[0]} {parts[-1]}"][packing.bits] += 1
    for kind, counts in kinds.items():
        listed = ", ".join(f"{count} at {bits} bits" for bits, count in sorted(counts.items()))
        report.result(f"  {kind}: {listed}", "bits", component=name, kind=kind, layers={**counts})
    report.note(
        "  These are the bits by the demo's errors; calibrating measures this model's own, and "
        "chooses anew for the same size."
    )
