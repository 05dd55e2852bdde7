"""The options of `sweep`: as those of `generate`, with several values each."""

from typing import Annotated, Any

from .options import option


def _values(group: str, *names: str, help: str, metavar: str) -> Any:
    return option(group, *names, help=help, metavar=metavar)


Prompt = Annotated[
    str | None, _values("Picture", "--prompt", "-p", help="What to draw.", metavar="TEXT")
]
Negative = Annotated[
    str | None,
    _values("Picture", "--negative-prompt", help="What to keep out; {a|b} varies.", metavar="TEXT"),
]
Size = Annotated[list[str] | None, _values("Picture", "--size", help="Sizes.", metavar="WxH,...")]
Aspect = Annotated[
    str | None, _values("Picture", "--aspect", help="Ratios of the sides.", metavar="W:H,...")
]
Megapixels = Annotated[
    str | None,
    _values("Picture", "--megapixels", help="Areas; 1 is 1024x1024.", metavar="N,..."),
]
Steps = Annotated[
    str | None, _values("Picture", "--steps", help="Steps of the sampler.", metavar="N,...")
]
Seeds = Annotated[
    list[str] | None,
    _values("Picture", "--seed", "-s", help="Seeds, or a range: 1-4. Default: 0.", metavar="N,..."),
]
Guidance = Annotated[
    str | None,
    _values("Picture", "--guidance", help="Strengths of guidance; 0 is off.", metavar="G,..."),
]
Sampler = Annotated[
    str | None, _values("Sampling", "--sampler", help="Samplers.", metavar="NAME,...")
]
Schedule = Annotated[
    str | None,
    _values(
        "Sampling",
        "--schedule",
        help="Names of schedules, or the noise levels of one.",
        metavar="NAME,...",
    ),
]
Shift = Annotated[
    str | None, _values("Sampling", "--shift", help="Shifts of the levels.", metavar="X,...")
]
NagScale = Annotated[
    str | None, _values("Sampling", "--nag", help="Scales of NAG; 1 is off.", metavar="S,...")
]
Variety = Annotated[
    str | None, _values("Sampling", "--variety", help="From 0 to 1.", metavar="X,...")
]
VariationOf = Annotated[
    str | None,
    _values("Sampling", "--variation-of", help="Seeds to vary.", metavar="SEED,..."),
]
Normalization = Annotated[
    str | None,
    _values("Expert", "--cfg-normalization", help="Limits; 0 is none.", metavar="X,..."),
]
Truncation = Annotated[
    str | None,
    _values("Expert", "--cfg-truncation", help="Times from 0 to 1.", metavar="T,..."),
]
VariationStrength = Annotated[
    str | None,
    _values("Sampling", "--variation-strength", help="From 0 to 1.", metavar="X,..."),
]
Hires = Annotated[
    str | None,
    _values("Sampling", "--hires", help="Factors to enlarge by.", metavar="FACTOR,..."),
]
HiresStrength = Annotated[
    str | None, _values("Sampling", "--hires-strength", help="From 0 to 1.", metavar="S,...")
]
Noise = Annotated[
    str | None, _values("Sampling", "--noise", help="Random generators.", metavar="KIND,...")
]
Strength = Annotated[
    str | None,
    _values("Picture to picture", "--strength", help="From 0 to 1.", metavar="S,..."),
]
Fit = Annotated[
    str | None,
    _values("Picture to picture", "--fit", help="crop, pad or stretch.", metavar="HOW,..."),
]
MaskSoftness = Annotated[
    str | None,
    _values("Picture to picture", "--mask-softness", help="In pixels.", metavar="PIXELS,..."),
]
Model = Annotated[
    str | None,
    _values(
        "Model",
        "--model",
        help="Models; each is loaded once. Default: turbo.",
        metavar="MODEL,...",
    ),
]
Quantize = Annotated[
    str | None,
    _values("Model", "--q", "-q", help="Bits, or none: 8,4,none.", metavar="BITS,..."),
]
Loras = Annotated[
    list[str] | None,
    _values(
        "Model",
        "--lora",
        help="A LoRA and its scales: style:0,0.5,1; repeatable.",
        metavar="FILE[:SCALE,...]",
    ),
]
Dtype = Annotated[
    str | None, _values("Model", "--dtype", help="Types to compute in.", metavar="TYPE,...")
]
Folder = Annotated[
    str,
    option(
        "Output",
        "--output",
        "-o",
        help="The folder for sheet.png, sheet.html, sweep.json and pictures/. A sweep that was "
        "stopped goes on there.",
        metavar="FOLDER",
    ),
]
