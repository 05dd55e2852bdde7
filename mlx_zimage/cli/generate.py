"""`generate`: pictures from a prompt."""

import dataclasses
import sys
import warnings
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import mlx.core as mx
import numpy as np
import typer

from .. import __version__
from ..convert import copies as cache
from ..convert.plan import Plan
from ..errors import RequestError
from ..files import check_writable, save_array
from ..images.png import save_png
from ..memory.store import default_dtype
from ..request import Request, Result
from ..sampling.noise import random_seed
from ..zimage import PromptTruncatedWarning, ZImage
from .progress import JSON, ByteMeter, Reporter, reporter
from .source import DOWNLOAD, OFFLINE, REVISION, bits, find

PROMPT = "What to draw."
MODEL = "A name (demo, turbo, base), a Hub repo id, a folder or a file."
QUANT = "Quantize the weights on loading: 3, 4, 5, 6, 8, mxfp4, mxfp8 or nvfp4."
SEED = "One picture for each: --seed 1 2 3. Drawn at random and shown if left out."
GUIDANCE = "Strength of the negative prompt; 0 is off. ComfyUI's cfg minus 1."
NEGATIVE = "What to keep away from; needs a guidance above 0."
NORMALIZATION = "Longest a guided prediction may be, in lengths of the unguided one."
TRUNCATION = "Share of the run (0 to 1) after which guidance is off."
SCHEDULE = "'legacy' (diffusers before 0.39), or noise levels: 1,0.8,0.5."
NOISE = "torch-cpu, torch-cuda:GPU (as 4090) or mlx: whose random numbers a seed means."
OUTPUT = "A .png file; with several seeds, the name takes each seed. Default: zimage-SEED.png."
LATENTS = "A .npy file of initial latents, in place of a seed."
EMBEDS = "A .npy file of a prompt embedding (length, width), in place of a prompt."
SAVE_EMBEDS = "Write the prompt's embedding to this .npy file; one picture only."
NO_CACHE = "Quantize in memory each time: keep no quantized copy of a large model (with --q)."
SAVE_LATENTS = "Write the final latents to this .npy file; one picture only."


def generate(
    prompt: Annotated[str | None, typer.Option(help=PROMPT)] = None,
    model: Annotated[str, typer.Option(help=MODEL)] = "turbo",
    q: Annotated[str | None, typer.Option("--q", help=QUANT)] = None,
    width: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="In pixels.")] = None,
    steps: Annotated[int | None, typer.Option(help="Forwards of the transformer.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help=SEED)] = None,
    guidance: Annotated[float | None, typer.Option(help=GUIDANCE)] = None,
    negative_prompt: Annotated[str | None, typer.Option(help=NEGATIVE)] = None,
    cfg_normalization: Annotated[float | None, typer.Option(help=NORMALIZATION)] = None,
    cfg_truncation: Annotated[float | None, typer.Option(help=TRUNCATION)] = None,
    schedule: Annotated[str | None, typer.Option(help=SCHEDULE)] = None,
    noise: Annotated[str | None, typer.Option(help=NOISE)] = None,
    latents: Annotated[Path | None, typer.Option(help=LATENTS)] = None,
    prompt_embeds: Annotated[Path | None, typer.Option(help=EMBEDS)] = None,
    output: Annotated[Path | None, typer.Option(help=OUTPUT)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    save_latents: Annotated[Path | None, typer.Option(help=SAVE_LATENTS)] = None,
    save_embeds: Annotated[Path | None, typer.Option(help=SAVE_EMBEDS)] = None,
    dtype: Annotated[str | None, typer.Option(help="bfloat16, float16 or float32.")] = None,
    memory: Annotated[str, typer.Option(help="auto, resident, staged or low.")] = "auto",
    revision: Annotated[str | None, typer.Option(help=REVISION)] = None,
    download: Annotated[bool, typer.Option("--download", help=DOWNLOAD)] = False,
    offline: Annotated[bool, typer.Option("--offline", help=OFFLINE)] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help=NO_CACHE)] = False,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """Make pictures from a prompt with Z-Image."""
    warnings.simplefilter("ignore", PromptTruncatedWarning)  # the reporter shows the event
    options: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "width": width,
        "height": height,
        "steps": steps,
        "guidance": guidance,
        "cfg_normalization": cfg_normalization,
        "cfg_truncation": cfg_truncation,
        "schedule": _levels(schedule),
        "noise": noise,
        "latents": None if latents is None else _array(latents),
        "prompt_embeds": None if prompt_embeds is None else _array(prompt_embeds),
    }
    requests = _requests(options, seed)
    saved = [file for file in (save_latents, save_embeds) if file is not None]
    outputs = _outputs(requests, output, saved, overwrite)
    if no_cache and q is None:
        raise typer.BadParameter("it cannot act without --q", param_hint="--no-cache")
    path = find(model, revision, download, offline, json)
    zimage = _loaded(path, bits(q), dtype, memory, requests, no_cache, json)
    with reporter(json) as report:
        for request, file in zip(requests, outputs, strict=True):
            result = _follow(zimage, request, report)
            save_png(result.image, file, _metadata(zimage, model, result), overwrite=overwrite)
            if save_latents is not None:
                save_array(_as_numpy(result.latents), save_latents, overwrite=overwrite)
            if save_embeds is not None:
                save_array(_as_numpy(result.prompt_embeds), save_embeds, overwrite=overwrite)
            report.saved(result, file)


def _loaded(
    path: Path,
    quantize: int | str | None,
    dtype: str | None,
    memory: str,
    requests: list[Request],
    no_cache: bool,
    json: bool,
) -> ZImage:
    """From a quantized copy where that is worth while, made if it is not there."""

    def load(path: Path, quantize: int | str | None, memory: str) -> ZImage:
        return ZImage.load(path, quantize=quantize, dtype=dtype, memory=memory)  # type: ignore[arg-type]  # checked there

    copied = None if quantize is None or no_cache else _copied(path, quantize, dtype)
    low = copied is not None and memory == "low"  # which is for the copy, once it is there
    zimage = load(path, quantize, "staged" if low else memory)
    for request in requests:  # what cannot be is refused before anything is made
        if low:
            zimage.estimate(request)
        else:
            zimage.stream(request).close()
    if copied is not None:
        zimage = load(_made(copied, json), None, memory)
    chosen = zimage.capabilities().memory
    if memory == "auto" and chosen != "resident" and not json:
        print(f"memory: {chosen}, as this device is small for the model", file=sys.stderr)
    return zimage


def _copied(path: Path, quantize: int | str, dtype: str | None) -> Plan | None:
    """A large model is quantized once, and read from there after that."""
    plan = Plan.of(path, quantize=quantize, dtype=dtype or default_dtype())
    return plan if cache.is_worth(plan) else None


def _made(plan: Plan, as_json: bool) -> Path:
    folder = cache.place(plan)
    if not folder.exists() and not as_json:
        size = f"{plan.total / 1e9:.2f} GB"
        print(f"quantizing once, to be kept in {folder} ({size})", file=sys.stderr, flush=True)
    with ByteMeter(as_json) as meter, closing(cache.make(plan)) as events:
        for event in events:
            meter.show(event)
    return folder


def _follow(zimage: ZImage, request: Request, report: Reporter) -> Result:
    """Show each event, and give back the picture."""
    results = []
    for event in zimage.stream(request):
        if isinstance(event, Result):
            results.append(event)
        else:
            report.event(event)
    return results[0]


def _requests(options: dict[str, Any], seeds: list[int] | None) -> list[Request]:
    if seeds:
        if len(set(seeds)) < len(seeds):
            raise RequestError("each --seed makes one picture, and one is given twice")
        return [Request(**options, seed=seed) for seed in seeds]
    if options["latents"] is not None:
        return [Request(**options)]
    return [Request(**options, seed=random_seed())]


def _outputs(
    requests: list[Request], output: Path | None, saved: list[Path], overwrite: bool
) -> list[Path]:
    """A file for each picture. These, and those `saved` beside them, can be written."""
    if output is None:
        names = [Path(f"zimage-{'latents' if r.seed is None else r.seed}.png") for r in requests]
        files = names if overwrite else [_free(name) for name in names]
    elif len(requests) == 1:
        files = [output]
    else:
        files = [output.with_stem(f"{output.stem}-{request.seed}") for request in requests]
    for file in files:
        check_writable(file, ".png", overwrite=overwrite)
    for file in saved:
        if len(requests) > 1:
            raise RequestError("arrays are saved of one picture; give one --seed")
        check_writable(file, ".npy", overwrite=overwrite)
    return files


def _free(file: Path) -> Path:
    """The name, or the next one that is not taken: only a default name may change."""
    number, free = 1, file
    while free.exists():
        number += 1
        free = file.with_stem(f"{file.stem}-{number}")
    return free


def _as_numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))  # NumPy has no bfloat16


def _levels(schedule: str | None) -> str | tuple[float, ...] | None:
    if schedule is None:
        return None
    try:
        return tuple(float(level) for level in schedule.split(","))
    except ValueError:
        return schedule


def _array(file: Path) -> np.ndarray:
    try:
        array = np.load(file, allow_pickle=False)
    except Exception as error:  # a broken header can raise anything that Python's parser does
        raise RequestError(f"{file} cannot be read as a .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise RequestError(f"{file} must be one .npy array, not an archive of several")
    return array


def _metadata(zimage: ZImage, model: str, result: Result) -> dict[str, Any]:
    made = dataclasses.asdict(zimage.capabilities())
    return {
        "request": result.request.to_dict(),
        "index": result.index,
        "model": model,
        **{key: made[key] for key in ("dtype", "quantize")},
        "mlx_zimage": __version__,
        "mlx": version("mlx"),
    }
