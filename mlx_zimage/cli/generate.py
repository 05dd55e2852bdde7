"""`generate`: pictures from prompts."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace as changed
from typing import Any

from .. import Event, Request, Result, Step, ZImage, size_for_aspect
from . import options as o
from . import request_options as r
from . import values
from .drawing import drawn
from .models import Models, usage
from .order import Item, Order
from .outputs import Outputs
from .parsing import UsageError
from .preview import Preview, preview_to
from .progress import Reporter, reporter


def generate(
    words: r.Words = None,
    prompt: r.Prompt = None,
    negative_prompt: r.NegativePrompt = None,
    width: r.Width = None,
    height: r.Height = None,
    size: r.Size = None,
    aspect: r.Aspect = None,
    megapixels: r.Megapixels = None,
    steps: r.Steps = None,
    seed: r.Seeds = None,
    count: r.Count = None,
    guidance: r.Guidance = None,
    cfg: r.Cfg = None,
    prompt_file: o.PromptFile = None,
    replay: o.Replay = None,
    image: r.Image = None,
    strength: r.Strength = None,
    fit: r.Fit = None,
    mask: r.Mask = None,
    mask_softness: r.MaskSoftness = None,
    keep_unmasked: r.KeepUnmasked = None,
    focus: r.Focus = None,
    outpaint: r.Outpaint = None,
    sampler: r.Sampler = None,
    schedule: r.Schedule = None,
    shift: r.Shift = None,
    nag: r.NagScale = None,
    variety: r.Variety = None,
    variation_of: r.VariationOf = None,
    variation_strength: r.VariationStrength = None,
    hires: r.Hires = None,
    hires_strength: r.HiresStrength = None,
    model: o.Model = None,
    q: o.Quantize = None,
    no_cache: o.NoCache = False,
    dtype: o.Dtype = None,
    lora: o.Loras = None,
    lora_folder: o.LoraFolder = None,
    revision: o.Revision = None,
    download: o.Download = False,
    offline: o.Offline = False,
    memory: o.Memory = "auto",
    estimate: o.Estimate = False,
    output: o.Output = None,
    overwrite: o.Overwrite = False,
    skip_existing: o.SkipExisting = False,
    no_metadata: o.NoMetadata = False,
    preview: o.Preview = None,
    preview_decoder: o.PreviewDecoder = None,
    save_latents: o.SaveLatents = None,
    save_embeds: o.SaveEmbeds = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    cfg_normalization: r.Normalization = None,
    cfg_truncation: r.Truncation = None,
    noise: r.Noise = None,
    latents: r.Latents = None,
    prompt_embeds: r.PromptEmbeds = None,
    version: o.Version = False,
) -> None:
    """Make pictures from a prompt with Z-Image."""
    options = dict(locals())
    if no_cache and q is None and replay is None:
        raise UsageError("--no-cache has no effect without --q")
    order = Order.read(options)
    with closing(reporter(json, quiet, order.jobs)) as report:
        show = preview_to(preview, report)
        models = Models.read(options, order.replayed, report)
        if aspect is not None:
            order = order.sized(_sides(models.peek(), aspect, megapixels))
        if estimate:
            _show_estimate(models.load(keep_copy=False), next(order.items()).request, report)
        elif order.lines is None:
            _draw_live(order, models, Saving(options, show, report))
        else:
            _draw(order, models, Saving(options, show, report))


class Saving:
    """Takes the events of pictures, and saves each."""

    def __init__(self, options: Mapping[str, Any], preview: Preview, report: Reporter):
        self._options, self._preview, self.report = options, preview, report
        self.skips = bool(options["skip_existing"])

    def plan(self, order: Order, tags: Sequence[int | str | None]) -> Outputs:
        options = self._options
        return Outputs.plan(
            options["output"],
            tags,
            options["save_latents"],
            options["save_embeds"],
            options["overwrite"],
            numbered=order.numbered,
            suffix=order.suffix,
            skip=self.skips,
            metadata=not options["no_metadata"],
        )

    def take(self, event: Event, item: Item, outputs: Outputs, place: int) -> None:
        """Show an event; save a picture, if it is the one that the item wants."""
        if not isinstance(event, Result):
            self.report.event(event)
            if isinstance(event, Step):
                self._preview.show(event)
        elif event.index == item.index:
            self.report.saved(event, outputs.save(event, place))


def _draw(order: Order, models: Models, saving: Saving) -> None:
    """Draw what is known from the start, as jobs that share loaded components."""
    items = [*order.items()]
    outputs = saving.plan(order, [item.tag for item in items])
    places = []
    for place, item in enumerate(items):
        if saving.skips and outputs.has(place, item.wanted):
            saving.report.kept(outputs.pictures[place])
        else:
            places.append(place)
    if not places:
        return
    requests = [items[place].request for place in places]
    zimage = models.load(requests)
    for event in drawn(zimage, requests):
        place = places[event.job]
        saving.take(event, items[place], outputs, place)


def _draw_live(order: Order, models: Models, saving: Saving) -> None:
    """Draw each prompt of standard input as it comes."""
    zimage = models.load()
    for number, item in enumerate(order.items()):
        outputs = saving.plan(order, [item.tag])
        if saving.skips and outputs.has(0, item.wanted):
            saving.report.kept(outputs.pictures[0])
            continue
        models.hint(zimage, [item.request])
        with usage():
            events = zimage.stream(item.request)
        for event in events:
            saving.take(changed(event, job=number), item, outputs, 0)


def _sides(zimage: ZImage, aspect: str, megapixels: float | None) -> dict[str, int]:
    """Return the sides of an aspect, by default in the area that the model draws."""
    model = zimage.capabilities()
    area = model.width * model.height if megapixels is None else values.area(megapixels)
    with usage():
        width, height = size_for_aspect(aspect, area, model.side_multiple)
    return {"width": width, "height": height}


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
