"""`bench`: what this machine does, on a screen and as a file that can be sent in."""

import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..bench.machine import command, describe, gemm_rate
from ..bench.measure import Measured, measure
from ..bench.synthetic import synthetic
from ..checkpoint.checkpoint import Checkpoint
from ..files import check_writable, write_atomically
from ..memory.store import DTYPES, Parts
from ..quantization.recipe import Quantization
from ..request import Request
from ..zimage import ZImage
from .source import REVISION, bits, find

PROMPT = "a red fox in the snow, its breath in the morning light, photograph, 35 mm"
MODEL = "A name, a Hub repo id, a folder or a file. Default: random weights in the real shapes."
LAYERS = "Of random weights: blocks in the transformer's joint stream (the real one has 30)."
SIDE = "Of the square picture, in pixels: --size 512 1024 for one after the other."
RUNS = "Times that each picture is made."
OUTPUT = "A .json file for the report: every sample, the machine, the versions, the command."


def bench(
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    q: Annotated[str | None, typer.Option("--q", help="As in generate.")] = None,
    size: Annotated[list[int] | None, typer.Option(help=SIDE)] = None,
    steps: Annotated[int, typer.Option(help="Forwards of the transformer.", min=1)] = 8,
    batch: Annotated[int, typer.Option(help="Pictures at once.", min=1)] = 1,
    layers: Annotated[int | None, typer.Option(help=LAYERS, min=1)] = None,
    runs: Annotated[int, typer.Option(help=RUNS, min=1)] = 1,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32.")] = None,
    memory: Annotated[str, typer.Option(help="auto, resident, staged or low.")] = "auto",
    revision: Annotated[str | None, typer.Option(help=REVISION)] = None,
    output: Annotated[Path | None, typer.Option(help=OUTPUT)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report alone, as JSON.")] = False,
) -> None:
    """Measure seconds and memory of each stage on this machine, without guidance."""
    if model is not None and layers is not None:
        raise typer.BadParameter("it is for random weights, without --model", param_hint="--layers")
    if revision is not None and model is None:
        raise typer.BadParameter("it cannot act without --model", param_hint="--revision")
    if output is not None:
        check_writable(output, ".json", overwrite=overwrite)
    zimage, checkpoint = _opened(model, revision, bits(q), layers, dtype, memory)
    report = _begun(zimage, checkpoint, model)
    if not json:
        _show_machine(report)
    for side in size or [checkpoint.default_side]:
        prompt = PROMPT if batch == 1 else (PROMPT,) * batch
        request = Request(prompt, width=side, height=side, steps=steps, seed=0, guidance=0)
        measured = measure(zimage, checkpoint, request, runs)
        report["pictures"].append(measured.to_dict())
        if not json:
            _show(measured, report["gemm_flops"])
    _save(report, output, overwrite, json)


def _begun(zimage: ZImage, checkpoint: Checkpoint, model: str | None) -> dict[str, Any]:
    """The report, but for its pictures."""
    made = zimage.capabilities()
    random = f"random weights, {checkpoint.transformer.n_layers} layers"
    return {
        "machine": describe(),
        "command": command("mlx-zimage", *sys.argv[1:]),
        "model": random if model is None else command(model)[0],
        **{key: getattr(made, key) for key in ("dtype", "quantize", "memory")},
        "gemm_flops": gemm_rate(DTYPES[made.dtype]),
        "pictures": [],
    }


def _save(report: dict[str, Any], output: Path | None, overwrite: bool, shown: bool) -> None:
    text = json_format.dumps(report, indent=2, ensure_ascii=False) + "\n"
    if output is not None:
        write_atomically(output, lambda file: file.write(text.encode()), overwrite=overwrite)
    if shown:
        print(text, end="")


def _opened(
    model: str | None,
    revision: str | None,
    quantize: int | str | None,
    layers: int | None,
    dtype: str | None,
    memory: str,
) -> tuple[ZImage, Checkpoint]:
    if model is None:
        checkpoint, quantization = synthetic(quantize, layers), None
    else:
        checkpoint = Checkpoint.open(find(model, revision, False, False, True))
        quantization = None if quantize is None else Quantization.parse(quantize)
    parts = Parts(checkpoint, quantization, dtype, memory)
    return ZImage(checkpoint, parts, quantize), checkpoint


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
