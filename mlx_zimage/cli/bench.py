"""`bench`: what this machine does, on a screen and as a file that can be sent in."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import typer

from .. import Request, ZImage, check_output
from ..bench.machine import command, describe, gemm_rate
from ..bench.measure import Measured, measure
from ..bench.probe import probe
from ..bench.run import open_model, report_text, save_report
from . import options as o
from . import values
from .models import Choice, find, usage
from .parsing import UsageError
from .progress import reporter

PROBED = {
    "mode": "mode  ",
    "bits": "bits",
    "group_size": "group size",
    "dtype": "dtype   ",
    "table_rows": "rows by the table",
    "measured_rows": "rows as measured",
}
"""The columns of --probe: from how many rows on unpacking is faster."""
PROMPT = "a red fox in the snow, its breath in the morning light, photograph, 35 mm"


def _option(*names: str, help: str, metavar: str | None = None, min: int | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, min=min, rich_help_panel="Work")


Model = Annotated[
    str | None,
    typer.Option(
        help=f"{o.MODELS}. Default: random weights in the real shapes.",
        metavar="MODEL",
        rich_help_panel="Model",
    ),
]
Layers = Annotated[
    int | None,
    typer.Option(
        help="Blocks of the random transformer (the real one has 30).",
        metavar="N",
        min=1,
        rich_help_panel="Model",
    ),
]
Sizes = Annotated[
    list[str] | None,
    _option(
        "--size",
        help="Sizes of the picture, one after the other: 512 1024, or 1280x720.",
        metavar="WxH ...",
    ),
]
Steps = Annotated[int, _option(help="Steps of the sampler.", metavar="N", min=1)]
Batch = Annotated[int, _option(help="Pictures at once.", metavar="N", min=1)]
Runs = Annotated[int, _option(help="Times that each picture is made.", metavar="N", min=1)]
Probe = Annotated[
    bool,
    _option(
        "--probe",
        help="Time the quantized kernels alone, and check the table that chooses between them.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File for the report: every sample, the machine, the versions, the command.",
        metavar="FILE.json",
        rich_help_panel="Output",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the report alone, as JSON.", rich_help_panel="Output"),
]


def bench(
    model: Model = None,
    layers: Layers = None,
    q: o.Quantize = None,
    dtype: o.Dtype = None,
    revision: o.Revision = None,
    memory: o.Memory = "auto",
    size: Sizes = None,
    steps: Steps = 8,
    batch: Batch = 1,
    runs: Runs = 1,
    probe: Probe = False,
    output: Report = None,
    overwrite: o.Overwrite = False,
    json: Json = False,
) -> None:
    """Measure this machine.

    Shows seconds and peak memory of each stage of a picture, without guidance.
    """
    if probe:
        _check_alone(model=model, layers=layers, q=q, revision=revision, size=size, output=output)
        _show_probe(json)
        return
    sizes = [values.size(item) for item in size] if size else [(None, None)]
    if output is not None:
        check_output(output, (".json",), overwrite=overwrite)
    with usage():
        _check_model(model, layers, revision)
        zimage, checkpoint = open_model(
            model,
            quantize=values.bits(q),
            layers=layers,
            dtype=dtype,
            memory=memory,
            revision=revision,
        )
        requests = [_request(batch, sides, steps) for sides in sizes]
        requests = [zimage.check(request) for request in requests]
    report = _begun(zimage, model or f"random weights, {checkpoint.transformer.n_layers} layers")
    if not json:
        _show_machine(report)
    for request in requests:
        measured = measure(zimage, checkpoint, request, runs)
        report["pictures"].append(measured.to_dict())
        if not json:
            _show(measured, report["gemm_flops"])
    if output is not None:
        save_report(report, output, overwrite=overwrite)
    if json:
        print(report_text(report), end="")


def _check_model(model: str | None, layers: int | None, revision: str | None) -> None:
    """Raise on options that have no effect, and where the model is not on this machine."""
    if model is not None and layers is not None:
        raise UsageError("--layers is for random weights; leave out --model")
    if model is None and revision is not None:
        raise UsageError("--revision has no effect without --model")
    if model is not None:
        find(Choice(model, revision, download=False, offline=False), reporter(True))


def _begun(zimage: ZImage, name: str) -> dict[str, Any]:
    """Return the report without its pictures."""
    chosen = zimage.capabilities()
    return {
        "machine": describe(),
        "command": command("mlx-zimage", *sys.argv[1:]),
        "model": command(name)[0],
        **{key: getattr(chosen, key) for key in ("dtype", "quantize", "memory")},
        "gemm_flops": gemm_rate(getattr(mx, chosen.dtype)),
        "pictures": [],
    }


def _check_alone(**others: object) -> None:
    for name, value in others.items():
        if value is not None and value != []:
            raise UsageError(f"--probe takes no other option than --json; leave out --{name}")


def _request(batch: int, sides: tuple[int | None, int | None], steps: int) -> Request:
    prompt = PROMPT if batch == 1 else (PROMPT,) * batch
    return Request(prompt, width=sides[0], height=sides[1], steps=steps, seed=0, guidance=0)


def _show_probe(as_json: bool) -> None:
    """Show from how many rows on unpacking is faster, by the table and as measured here."""
    if as_json:
        rows = [dataclasses.asdict(row) for row in probe()]
        print(report_text({"machine": describe(), "probe": rows}), end="")
        return
    print("  ".join(PROBED.values()))
    agreements = []
    for row in probe():
        values = [getattr(row, name) for name in PROBED]
        texts = ["-" if value is None else str(value) for value in values]
        cells = [text.ljust(len(name)) for text, name in zip(texts, PROBED.values(), strict=True)]
        print("  ".join([*cells, "ok" if row.agrees else "differs"]), flush=True)
        agreements.append(row.agrees)
    count = f"{agreements.count(False)} of {len(agreements)} rows"
    right = all(agreements)
    print(
        f"the table is {'right on this machine' if right else f'wrong on this machine in {count}'}"
    )


def _show_machine(report: dict[str, Any]) -> None:
    machine = report["machine"]
    weights = "not quantized" if report["quantize"] is None else f"quantized: {report['quantize']}"
    print(
        f"{machine['chip']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['os']}"
    )
    print(
        f"mlx-zimage {machine['mlx_zimage']}, MLX {machine['mlx']} on the {machine['device']}: "
        f"{report['gemm_flops'] / 1e9:.0f} GFLOP/s in a matrix product of {report['dtype']}"
    )
    print(f"{report['model']}, {weights}, {report['dtype']}, memory {report['memory']}")


def _show(measured: Measured, rate: float) -> None:
    share = measured.step_flops / measured.step / rate
    batch = "" if measured.batch == 1 else f"{measured.batch} pictures of "
    print(f"\n{batch}{measured.width}x{measured.height}, {measured.tokens} tokens")
    for stage in measured.stages:
        low, high = min(stage.seconds), max(stage.seconds)
        spread = "" if len(stage.seconds) == 1 else f"  ({low:.2f} to {high:.2f})"
        peak = f"{stage.peak / 1e9:.2f} GB"
        print(f"{stage.name:18} {stage.median:8.2f} s  {peak:>9}{spread}")
    print(f"a step does {share:.0%} of what that matrix product does in its time")
    print(f"at most {measured.peak / 1e9:.2f} GB; the process {measured.peak_rss / 1e9:.2f} GB")
