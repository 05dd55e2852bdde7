"""`sweep`: one request with several values of some fields, on a contact sheet."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import Finished, Request, Result, Sweep, SweepCell, ZImage, check_outputs, save_picture
from . import options as o
from . import request_options as r
from . import sweep_options as s
from . import values
from .axes import aspect_axis, axes_from
from .drawing import drawn
from .models import Choice, load, usage
from .order import prompts_from, with_pictures
from .parsing import UsageError
from .progress import Reporter, reporter, seconds_text

DATA = "sweep.json"
FILES = ("sheet.png", "sheet.html", DATA)


def sweep(
    words: r.Words = None,
    prompt: s.Prompt = None,
    negative_prompt: s.Negative = None,
    size: s.Size = None,
    aspect: s.Aspect = None,
    megapixels: s.Megapixels = None,
    steps: s.Steps = None,
    seed: s.Seeds = None,
    guidance: s.Guidance = None,
    sampler: s.Sampler = None,
    schedule: s.Schedule = None,
    shift: s.Shift = None,
    nag: s.NagScale = None,
    variety: s.Variety = None,
    variation_of: s.VariationOf = None,
    variation_strength: s.VariationStrength = None,
    noise: s.Noise = None,
    hires: s.Hires = None,
    hires_strength: s.HiresStrength = None,
    image: r.Image = None,
    strength: s.Strength = None,
    fit: s.Fit = None,
    mask: r.Mask = None,
    mask_softness: s.MaskSoftness = None,
    keep_unmasked: r.KeepUnmasked = None,
    focus: r.Focus = None,
    outpaint: r.Outpaint = None,
    model: s.Model = None,
    q: s.Quantize = None,
    no_cache: o.NoCache = False,
    dtype: s.Dtype = None,
    lora: s.Loras = None,
    lora_folder: o.LoraFolder = None,
    revision: o.Revision = None,
    download: o.Download = False,
    offline: o.Offline = False,
    memory: o.Memory = "auto",
    output: s.Folder = "sweep",
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
    cfg_normalization: s.Normalization = None,
    cfg_truncation: s.Truncation = None,
    version: o.Version = False,
) -> None:
    """Compare values side by side.

    Options take several values, as --steps 4,8 --seed 1-3, and a prompt several words, as "a
    {red|blue} fox". Every combination is drawn once.
    """
    options = dict(locals())
    _check(options)
    with closing(reporter(json, quiet, None)) as report:
        with usage():
            axes = axes_from(options)
            if aspect is not None:
                name = str(next(a for a in axes if a.name == "model").values[0]["model"])
                zimage = _model(options, report, {"model": name})
                axes.append(aspect_axis(zimage, aspect, megapixels))
            plan = Sweep.plan(_fixed(options), axes)
        Drawing(plan, options, report).run()


class Drawing:
    """The pictures of a sweep in its folder."""

    def __init__(self, plan: Sweep, options: Mapping[str, Any], report: Reporter):
        self._plan, self._options, self._report = plan, options, report
        self._folder = Path(options["output"]).expanduser()
        self._files = plan.files(self._folder / "pictures")
        self._taken: dict[str, float] = {}  # seconds, by the names of files
        self._loaded: tuple[dict[str, Any], ZImage] | None = None  # with its settings

    def run(self) -> None:
        """Draw what is not there yet, then write the sheet."""
        missing = self._missing()
        files = [(self._files[cell.number], ".png") for cell in missing]
        is_ours = (self._folder / DATA).exists() or bool(self._options["overwrite"])
        check_outputs(files, overwrite=bool(self._options["overwrite"]))
        check_outputs([(self._folder / n, Path(n).suffix) for n in FILES], overwrite=is_ours)
        clock = Clock(self._announce(missing), self._report)
        self._report.expect(len(missing))
        for settings, cells in self._plan.groups.items():
            wanted = [cell for cell in cells if cell in missing]
            if wanted:
                self._draw(dict(settings), wanted, clock)
        seconds = {**self._plan.read_seconds(self._folder), **self._taken}
        title = _title(self._plan, self._options)
        self._plan.save(self._folder, self._files, title, seconds)
        for file in [self._folder / name for name in FILES]:
            self._report.result(str(file), "sheet", file=str(file))

    def _missing(self) -> list[SweepCell]:
        """Return the cells whose pictures are not there."""
        if self._options["overwrite"]:
            return [*self._plan.cells]
        files = self._files
        return [cell for cell in self._plan.cells if not cell.is_drawn(files[cell.number])]

    def _announce(self, missing: Sequence[SweepCell]) -> dict[int, Request]:
        """Tell how many pictures there will be, and the memory; return their filled requests."""
        filled: dict[int, Request] = {}
        peaks, device = [0], 0
        for settings, cells in self._plan.groups.items():
            wanted = [cell for cell in cells if cell in missing]
            if not wanted:
                continue
            with usage():
                zimage = _model(self._options, self._report, dict(settings))
                for cell in wanted:
                    filled[cell.number] = zimage.check(cell.request)
                    peaks.append(zimage.estimate(cell.request).peak)
            device = zimage.capabilities().device_memory
        count, kept = len(self._plan.cells), len(self._plan.cells) - len(missing)
        axes = [*self._plan.rows, *self._plan.columns]
        shape = " x ".join(f"{len(axis.values)} {_plural(axis.name)}" for axis in axes)
        text = ("1 picture" if count == 1 else f"{count} pictures") + (
            f" ({shape})" if len(axes) > 1 else ""
        )
        text += f", {kept} of them are there already" if kept else ""
        text += f"; at most {max(peaks) / 1e9:.2f} of {device / 1e9:.2f} GB" if missing else ""
        self._report.tell(text, "sweep", pictures=count, kept=kept, peak=max(peaks), device=device)
        return filled

    def _draw(
        self, settings: Mapping[str, Any], cells: Sequence[SweepCell], clock: "Clock"
    ) -> None:
        """Draw the cells of one model, which is loaded once."""
        requests = [cell.request for cell in cells]
        with usage():
            zimage = self._model(settings, requests)
        first = clock.done
        for happened in drawn(zimage, requests):
            cell, event = cells[happened.job], replace(happened, job=happened.job + first)
            file = self._files[cell.number]
            if isinstance(event, Result):
                overwrite = bool(self._options["overwrite"])
                save_picture(event.image, file, event.metadata, overwrite=overwrite)
                self._report.saved(event, file)
                clock.done += 1
                continue
            self._report.event(event)
            if isinstance(event, Finished) and event.phase in ("denoise", "decode"):
                self._taken[file.name] = self._taken.get(file.name, 0.0) + event.seconds
                clock.finished(event, cell)

    def _model(self, settings: Mapping[str, Any], requests: Sequence[Request]) -> ZImage:
        """Return the model of some cells; models that differ in their LoRAs are loaded once."""
        base = {name: value for name, value in settings.items() if name != "loras"}
        if self._loaded is not None and self._loaded[0] == base:
            self._loaded[1].set_loras(settings["loras"])
            return self._loaded[1]
        if self._loaded is not None:
            self._loaded[1].unload()
        zimage = _model(self._options, self._report, settings, requests, is_final=True)
        self._loaded = base, zimage
        return zimage


class Clock:
    """Tells how long the pictures will take, from the steps of the first."""

    def __init__(self, requests: Mapping[int, Request], report: Reporter):
        self._requests, self._report = requests, report
        self._is_told = len(requests) < 2
        self.done = 0

    def finished(self, event: Finished, cell: SweepCell) -> None:
        """Measure the first picture's steps."""
        if self._is_told or event.phase != "denoise":
            return
        self._is_told = True
        works = {number: _work(request) for number, request in self._requests.items()}
        rest = sum(works.values()) - works[cell.number]
        seconds = event.seconds * rest / works[cell.number]
        text = f"about {seconds_text(seconds)} for the other {len(works) - 1}"
        self._report.tell(text, "time", seconds=seconds, pictures=len(works) - 1)


def _work(request: Request) -> float:
    """Return the work of a picture's steps, as a multiple of one pixel's in one step."""
    assert request.width and request.height and request.steps
    strength = 1.0 if request.strength is None else max(request.strength, 1 / request.steps)
    passes = 2 if request.guidance else 1
    return request.width * request.height * request.steps * strength * passes


def _model(
    options: Mapping[str, Any],
    report: Reporter,
    settings: Mapping[str, Any],
    requests: Sequence[Request] = (),
    *,
    is_final: bool = False,
) -> ZImage:
    """Return a model; where it is not the final one, only to ask for sizes."""
    source = settings["model"]
    choice = Choice(source, options["revision"], options["download"], options["offline"])
    keep_copy = is_final and not options["no_cache"]
    others = {name: value for name, value in settings.items() if name != "model"}
    others["lora_folder"] = options["lora_folder"]
    memory = options["memory"]
    if not is_final and memory == "low" and others.get("quantize") is not None:
        memory = "staged"  # the copy whose blocks will be read is not written yet
    return load(choice, report, requests, keep_copy=keep_copy, memory=memory, **others)


def _fixed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that have one value in all cells."""
    fields = {name: options[name] for name in ("image", "mask", "keep_unmasked")}
    fields |= {"focus": values.margin(options["focus"])}
    fields |= {"outpaint": values.border(options["outpaint"])}
    return with_pictures({name: value for name, value in fields.items() if value is not None})


def _title(plan: Sweep, options: Mapping[str, Any]) -> str:
    """Return what all pictures have in common: the prompt or its template, and the seed."""
    templates = prompts_from(options["words"], options["prompt"])
    varied = {axis.name for axis in (*plan.rows, *plan.columns)}
    parts = [*templates] if len(templates) == 1 else []
    parts += [] if "seed" in varied else [f"seed {plan.cells[0].request.seed}"]
    return ", ".join(parts)


def _plural(name: str) -> str:
    word = {"quantize": "precision", "loras": "LoRA scale"}.get(name, name.replace("_", " "))
    return word if word.endswith("s") else f"{word}s"


def _check(options: Mapping[str, Any]) -> None:
    if options["no_cache"] and options["q"] is None:
        raise UsageError("--no-cache has no effect without --q")
    if not options["output"]:
        raise UsageError("--output must name a folder, not ''")
    if options["aspect"] is None and options["megapixels"] is not None:
        raise UsageError("--megapixels has no effect without --aspect")
    if options["aspect"] is not None and options["size"]:
        raise UsageError("--aspect sets width and height; leave out --size")
