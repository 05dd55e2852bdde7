"""`generate`: pictures from a prompt."""

from contextlib import closing
from typing import Any

from .. import Request, Result, ZImage
from . import options as o
from . import values
from .models import Choice, load, usage
from .outputs import Outputs, read_array
from .parsing import UsageError
from .progress import Reporter, reporter


def generate(
    words: o.Words = None,
    prompt: o.Prompt = None,
    negative_prompt: o.NegativePrompt = None,
    width: o.Width = None,
    height: o.Height = None,
    size: o.Size = None,
    steps: o.Steps = None,
    seed: o.Seeds = None,
    count: o.Count = None,
    guidance: o.Guidance = None,
    cfg: o.Cfg = None,
    model: o.Model = "turbo",
    q: o.Quantize = None,
    no_cache: o.NoCache = False,
    dtype: o.Dtype = None,
    revision: o.Revision = None,
    download: o.Download = False,
    offline: o.Offline = False,
    memory: o.Memory = "auto",
    estimate: o.Estimate = False,
    output: o.Output = None,
    overwrite: o.Overwrite = False,
    save_latents: o.SaveLatents = None,
    save_embeds: o.SaveEmbeds = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    cfg_normalization: o.Normalization = None,
    cfg_truncation: o.Truncation = None,
    schedule: o.Schedule = None,
    noise: o.Noise = None,
    latents: o.Latents = None,
    prompt_embeds: o.PromptEmbeds = None,
    version: o.Version = False,
) -> None:
    """Make pictures from a prompt with Z-Image."""
    choice = Choice(model, revision, download, offline)
    fields = {
        "prompt": _prompt(words, prompt),
        "negative_prompt": negative_prompt,
        **_sides(width, height, size),
        "steps": steps,
        "guidance": values.guidance_of(guidance, cfg),
        "cfg_normalization": cfg_normalization,
        "cfg_truncation": cfg_truncation,
        "schedule": values.levels(schedule),
        "noise": noise,
        "latents": read_array(latents),
        "prompt_embeds": read_array(prompt_embeds),
    }
    requests = _requests(fields, values.seeds(seed, count), count)
    if no_cache and q is None:
        raise UsageError("--no-cache has no effect without --q")
    settings = {"quantize": values.bits(q), "dtype": dtype, "memory": memory}
    with closing(reporter(json, quiet, len(requests))) as report:
        if estimate:
            zimage = load(choice, report, keep_copy=False, **settings)
            _show_estimate(zimage, requests[0], report)
            return
        seeds = [request.seed if isinstance(request.seed, int) else None for request in requests]
        outputs = Outputs.plan(output, seeds, save_latents, save_embeds, overwrite)
        zimage = load(choice, report, requests, keep_copy=not no_cache, **settings)
        _note_memory(zimage, memory, report)
        _draw(zimage, requests, outputs, report)


def _draw(zimage: ZImage, requests: list[Request], outputs: Outputs, report: Reporter) -> None:
    """Run the requests as one job: where memory is staged, each component is loaded once."""
    with closing(zimage.stream_all(requests)) as events:
        for event in events:
            if isinstance(event, Result):
                report.saved(event, outputs.save(event))
            else:
                report.event(event)


def _show_estimate(zimage: ZImage, request: Request, report: Reporter) -> None:
    with usage():
        estimate = zimage.estimate(request)
    device = zimage.capabilities().device_memory
    phases = {name: getattr(estimate, name) for name in ("encode", "denoise", "decode")}
    listed = ", ".join(f"{name} {size / 1e9:.2f} GB" for name, size in phases.items())
    report.result(
        f"with --memory {estimate.memory}: {listed}\n"
        f"at most {estimate.peak / 1e9:.2f} GB, of {device / 1e9:.2f} GB on this device",
        "estimate",
        memory=estimate.memory,
        **phases,
        peak=estimate.peak,
        device=device,
    )


def _note_memory(zimage: ZImage, memory: str, report: Reporter) -> None:
    chosen = zimage.capabilities().memory
    if memory == "auto" and chosen != "resident":
        report.note(f"--memory {chosen} is used, because the model is large for this device")


def _prompt(words: str | None, prompt: str | None) -> str | None:
    if words is not None and prompt is not None:
        raise UsageError(f"two prompts are given: {values.shown(words)} and --prompt")
    return words if prompt is None else prompt


def _sides(width: int | None, height: int | None, size: str | None) -> dict[str, int | None]:
    if size is None:
        return {"width": width, "height": height}
    if width is not None or height is not None:
        raise UsageError("--size sets width and height; leave out --width and --height")
    return dict(zip(("width", "height"), values.size(size), strict=True))


def _requests(fields: dict[str, Any], seeds: list[int] | None, count: int | None) -> list[Request]:
    """Return a request for each seed: those that are listed, or random ones."""
    if count is not None and not 1 <= count <= values.MAX_PICTURES:
        raise UsageError(f"--count must be from 1 to {values.MAX_PICTURES}, not {count}")
    if fields["prompt"] is None and fields["prompt_embeds"] is None:
        raise UsageError('a prompt is needed: generate "a red fox"')
    with usage():
        if fields["latents"] is None and seeds is None:
            seeds = [values.random_seed() for _ in range(count or 1)]
        if seeds is None:
            return [Request(**fields)]
        return [Request(**fields, seed=seed) for seed in seeds]
