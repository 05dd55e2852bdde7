"""`train` a LoRA on pictures with captions."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import Result, TrainingOptions, TrainingStarted, TrainingStep
from .. import train as training
from . import options as o
from . import values
from .models import Choice, find, usage
from .progress import Reporter, reporter

DEFAULT = TrainingOptions()
Images = Annotated[
    Path,
    typer.Argument(
        help="A folder of pictures, each with a caption in a .txt file of its name, or a .jsonl "
        "file of file_name and text.",
        metavar="IMAGES",
        rich_help_panel="Files",
    ),
]
Out = Annotated[
    Path,
    typer.Argument(help="The .safetensors file to write.", metavar="OUT", rich_help_panel="Files"),
]
Caption = Annotated[
    str | None,
    o.option("Files", "--caption", help="Caption of pictures without one.", metavar="TEXT"),
]
Adapter = Annotated[
    Path | None,
    o.option(
        "Model",
        "--adapter",
        help="A LoRA that stays attached while training and not for samples, such as Turbo's "
        "training adapter.",
        metavar="FILE",
    ),
]
Steps = Annotated[int, o.option("Training", "--steps", help="Steps.", metavar="N")]
Batch = Annotated[int, o.option("Training", "--batch", help="Pictures in a pass.", metavar="N")]
Accumulate = Annotated[
    int,
    o.option("Training", "--accumulate", help="Passes that make a step.", metavar="N"),
]
Resolution = Annotated[
    int | None,
    o.option(
        "Training",
        "--resolution",
        help="Pictures have at most the pixels of a square of this side, in their own aspect. "
        "Default: the model's.",
        metavar="N",
    ),
]
Rate = Annotated[
    float,
    o.option("Training", "--learning-rate", "--lr", help="Highest learning rate.", metavar="X"),
]
Warmup = Annotated[
    int,
    o.option(
        "Training",
        "--warmup",
        help="Steps over which the rate rises; then it falls along a cosine.",
        metavar="N",
    ),
]
Dropout = Annotated[
    float,
    o.option("Training", "--caption-dropout", help="Share of captions left out.", metavar="X"),
]
Levels = Annotated[
    str,
    o.option(
        "Training",
        "--levels",
        help="Noise levels before the shift: uniform, as the sampler's steps, or logit-normal.",
        metavar="NAME",
    ),
]
Shift = Annotated[
    float | None,
    o.option("Training", "--shift", help="Shift of the levels. Default: the model's.", metavar="X"),
]
Seed = Annotated[
    int, o.option("Training", "--seed", help="Seed of all that is random.", metavar="N")
]
Kind = Annotated[
    str, o.option("File", "--kind", help="What is trained: lora or lokr.", metavar="NAME")
]
Rank = Annotated[int, o.option("File", "--rank", help="Rank of a LoRA.", metavar="N")]
Factor = Annotated[
    int,
    o.option(
        "File", "--factor", help="Side of a LoKr's first matrix; -1: the most square.", metavar="N"
    ),
]
Target = Annotated[
    list[str] | None,
    o.option(
        "File",
        "--target",
        help="Layers to train by a part of their path, as attention, to_q or layers.*.w1; "
        "repeatable. Default: attention and feed_forward.",
        metavar="NAME",
    ),
]
Checkpointing = Annotated[
    bool,
    o.option(
        "Memory",
        "--checkpointing/--no-checkpointing",
        help="Compute each block again for its gradient: a third slower, far less memory.",
    ),
]
Estimate = Annotated[
    bool,
    o.option("Memory", "--estimate", help="Print what the run would take, and train nothing."),
]
SaveEvery = Annotated[
    int, o.option("Output", "--save-every", help="Steps between two saves.", metavar="N")
]
SampleEvery = Annotated[
    int,
    o.option(
        "Output", "--sample-every", help="Steps between two sample pictures; 0: none.", metavar="N"
    ),
]
Sample = Annotated[
    list[str] | None,
    o.option(
        "Output",
        "--sample",
        help="Prompt of a sample; repeatable. Default: the first two captions.",
        metavar="TEXT",
    ),
]
Resume = Annotated[bool, o.option("Output", "--resume", help="Go on where a run was stopped.")]
Overwrite = Annotated[
    bool, o.option("Output", "--overwrite", help="Begin anew where a run or a file is there.")
]


def train(
    images: Images,
    out: Out,
    caption: Caption = None,
    model: o.Model = None,
    q: o.Quantize = None,
    dtype: o.Dtype = None,
    adapter: Adapter = None,
    revision: o.Revision = None,
    download: o.Download = False,
    offline: o.Offline = False,
    steps: Steps = DEFAULT.steps,
    batch: Batch = DEFAULT.batch,
    accumulate: Accumulate = DEFAULT.accumulate,
    resolution: Resolution = None,
    learning_rate: Rate = DEFAULT.learning_rate,
    warmup: Warmup = DEFAULT.warmup,
    caption_dropout: Dropout = DEFAULT.caption_dropout,
    levels: Levels = DEFAULT.levels,
    shift: Shift = None,
    seed: Seed = DEFAULT.seed,
    kind: Kind = DEFAULT.kind,
    rank: Rank = DEFAULT.rank,
    factor: Factor = DEFAULT.factor,
    target: Target = None,
    checkpointing: Checkpointing = DEFAULT.checkpointing,
    estimate: Estimate = False,
    save_every: SaveEvery = DEFAULT.save_every,
    sample_every: SampleEvery = DEFAULT.sample_every,
    sample: Sample = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
    version: o.Version = False,
) -> None:
    """Train a LoRA on pictures with captions.

    Ctrl-C stops a run and saves it; --resume goes on to the same file. Beside OUT a folder keeps
    the state, the samples and the loss curve.
    """
    given = dict(locals())
    with closing(reporter(json, quiet)) as report:
        with usage():
            options = _options(given)
        source = find(Choice(model or "turbo", revision, download, offline), report)
        events = training(
            images,
            out,
            source,
            options=options,
            adapter=adapter,
            quantize=values.bits(q),
            dtype=dtype,
            resume=resume,
            overwrite=overwrite,
        )
        with closing(events):
            _show(events, report, out, estimate)


def _options(given: Mapping[str, Any]) -> TrainingOptions:
    """Return the options of the library, most of which bear the same names."""
    names = [name for name in vars(DEFAULT) if name in given]
    fields = {name: given[name] for name in names}
    fields |= {
        "targets": tuple(given["target"] or DEFAULT.targets),
        "sample_prompts": tuple(given["sample"] or ()),
        "default_caption": given["caption"],
    }
    return TrainingOptions(**fields)


def _show(events: Any, report: Reporter, out: Path, only_estimate: bool) -> None:
    """Show a run; say after Ctrl-C how to go on."""
    done = 0
    try:
        for event in events:
            if isinstance(event, Result):  # a sample: its file comes with the step
                continue
            report.event(event)
            if isinstance(event, TrainingStarted):
                report.note(_summary(event))
                if only_estimate:
                    return
            elif isinstance(event, TrainingStep):
                done = event.number
                for file in event.saved:
                    report.note(f"step {done}: {file}")
        report.result(str(out), "trained", file=str(out))
    except KeyboardInterrupt:
        if done:
            report.warn(f"stopped after step {done}, which is saved; --resume goes on from there")
        raise


def _summary(event: TrainingStarted) -> str:
    steps = f"steps {event.step + 1} to {event.steps}"
    if event.step == event.steps:
        steps = f"all {event.steps} steps are done"
    sizes = ", ".join(f"{count} of {width}x{height}" for width, height, count in event.sizes)
    return (
        f"{event.pictures} pictures ({sizes}); {event.layers} layers, {event.parameters:,} numbers "
        f"to train; {steps}, {event.epochs:.1f} epochs; at most "
        f"{event.peak / 1e9:.2f} of {event.device_memory / 1e9:.2f} GB"
    )
