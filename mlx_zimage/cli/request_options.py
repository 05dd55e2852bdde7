"""The options of `generate` that become fields of a request, in the groups that help lists."""

from pathlib import Path
from typing import Annotated

import typer

from .options import option as _option

# Picture

Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="What to draw, in quotes; the same as --prompt. Several draw a picture each.",
        metavar="PROMPT",
        show_default=False,
        rich_help_panel="Picture",
    ),
]
Prompt = Annotated[
    str | None, _option("Picture", "--prompt", "-p", help="What to draw.", metavar="TEXT")
]
NegativePrompt = Annotated[
    str | None,
    _option(
        "Picture",
        "--negative-prompt",
        help="What to keep out of the picture; needs guidance above 0, or --nag.",
        metavar="TEXT",
    ),
]
Width = Annotated[
    int | None,
    _option("Picture", "--width", "-W", help="Width in pixels.", metavar="PIXELS"),
]
Height = Annotated[
    int | None,
    _option("Picture", "--height", "-H", help="Height in pixels.", metavar="PIXELS"),
]
Size = Annotated[
    str | None,
    _option(
        "Picture",
        "--size",
        help="Width and height: 1024x768, or 1024 for a square.",
        metavar="WxH",
    ),
]
Aspect = Annotated[
    str | None,
    _option(
        "Picture",
        "--aspect",
        help="The sides' ratio instead of a size: 16:9, 3:2, 1:1, 3:4 or any other.",
        metavar="W:H",
    ),
]
Megapixels = Annotated[
    float | None,
    _option(
        "Picture",
        "--megapixels",
        help="Area for --aspect; 1 is 1024x1024. Default: the model's.",
        metavar="N",
    ),
]
Steps = Annotated[
    int | None,
    _option(
        "Picture",
        "--steps",
        help="Steps of the sampler. Default: the model's (8 for Turbo, 50 for Base).",
        metavar="N",
    ),
]
Seeds = Annotated[
    list[str] | None,
    _option(
        "Picture",
        "--seed",
        "-s",
        help="One picture for each seed: 7, several (1 2 3 or 1,2,3) or a range (1-4). "
        "Default: a random one, which is shown.",
        metavar="N ...",
    ),
]
Count = Annotated[
    int | None,
    _option("Picture", "--count", help="Pictures with a random seed each.", metavar="N"),
]
Guidance = Annotated[
    float | None,
    _option(
        "Picture",
        "--guidance",
        help="Strength of guidance, 0 is off; above 0 each step takes twice as long. "
        "Default: the model's (0 for Turbo, 4 for Base).",
        metavar="G",
    ),
]
Cfg = Annotated[
    float | None,
    _option(
        "Picture",
        "--cfg",
        help="The same on ComfyUI's scale, where 1 is off: --cfg 5 is --guidance 4.",
        metavar="C",
    ),
]

# Picture to picture

_CHANGE = "Picture to picture"
Image = Annotated[
    str | None, _option(_CHANGE, "--image", help="A picture to change.", metavar="FILE")
]
Strength = Annotated[
    float | None,
    _option(
        _CHANGE,
        "--strength",
        help="How much of it is painted anew: 0 nothing, 1 all. Default: 0.6, with a mask 1.",
        metavar="S",
    ),
]
Fit = Annotated[
    str | None,
    _option(
        _CHANGE,
        "--fit",
        help="How it is brought to the size: crop (default), pad or stretch.",
        metavar="HOW",
    ),
]
Mask = Annotated[
    str | None,
    _option(_CHANGE, "--mask", help="A picture that is white where to paint.", metavar="FILE"),
]
MaskSoftness = Annotated[
    float | None,
    _option(
        _CHANGE,
        "--mask-softness",
        help="Width of the mask's soft edge; 0 is hard.",
        metavar="PIXELS",
    ),
]
KeepUnmasked = Annotated[
    bool | None,
    typer.Option(
        "--keep-unmasked/--no-keep-unmasked",
        help="Keep the pixels outside of the mask as they are (default).",
        rich_help_panel=_CHANGE,
    ),
]
Focus = Annotated[
    str | None,
    _option(
        _CHANGE,
        "--focus",
        help="Paint the mask's surroundings alone, at full size, with this margin (default 32).",
        metavar="[PIXELS]",
    ),
]
Outpaint = Annotated[
    str | None,
    _option(
        _CHANGE,
        "--outpaint",
        help="Pixels to add at the left, top, right and bottom.",
        metavar="L,T,R,B",
    ),
]

# Sampling

Sampler = Annotated[
    str | None,
    _option(
        "Sampling",
        "--sampler",
        help="euler (default), euler_ancestral, res_multistep, dpmpp_2m or twinflow.",
        metavar="NAME",
    ),
]
Schedule = Annotated[
    str | None,
    _option(
        "Sampling",
        "--schedule",
        help="Noise levels: simple, sgm_uniform, normal, beta, legacy (diffusers before 0.39), "
        "or numbers: 1,0.8,0.5.",
        metavar="NAME",
    ),
]
Shift = Annotated[
    float | None,
    _option(
        "Sampling",
        "--shift",
        help="Moves the noise levels up. Default: the model's (3 for Turbo, 6 for Base).",
        metavar="X",
    ),
]
NagScale = Annotated[
    str | None,
    _option(
        "Sampling",
        "--nag",
        help="Guidance without a second forward, for negative prompts on Turbo: the scale, as 3, "
        "or with tau and alpha, as 3,3.5,0.5.",
        metavar="S",
    ),
]
Variety = Annotated[
    float | None,
    _option(
        "Sampling",
        "--variety",
        help="How far seeds differ, from 0 (off) to 1.",
        metavar="X",
    ),
]
VariationOf = Annotated[
    int | None,
    _option(
        "Sampling",
        "--variation-of",
        help="Vary the picture of this seed.",
        metavar="SEED",
    ),
]
VariationStrength = Annotated[
    float | None,
    _option(
        "Sampling",
        "--variation-strength",
        help="How far: 0 is its picture, 1 that of --seed.",
        metavar="X",
    ),
]
Hires = Annotated[
    float | None,
    _option(
        "Sampling",
        "--hires",
        help="Enlarge the picture by this factor and refine it.",
        metavar="FACTOR",
    ),
]
HiresStrength = Annotated[
    float | None,
    _option(
        "Sampling",
        "--hires-strength",
        help="How much of it is painted anew then, 0 to 1.",
        metavar="S",
    ),
]

# Expert

Normalization = Annotated[
    float | None,
    _option(
        "Expert",
        "--cfg-normalization",
        help="Limit of a guided prediction's length, as a multiple of the unguided one's; "
        "0 is no limit.",
        metavar="X",
    ),
]
Truncation = Annotated[
    float | None,
    _option(
        "Expert",
        "--cfg-truncation",
        help="Model time (0 noise to 1 clean) after which guidance is off; "
        "not a share of the steps.",
        metavar="T",
    ),
]
Noise = Annotated[
    str | None,
    _option(
        "Expert",
        "--noise",
        help="Random generator of the seed: torch-cpu (default), torch-cuda:GPU (as in "
        "torch-cuda:4090) or mlx.",
        metavar="KIND",
    ),
]
Latents = Annotated[
    Path | None,
    _option("Expert", "--latents", help="Initial latents, instead of a seed.", metavar="FILE.npy"),
]
PromptEmbeds = Annotated[
    Path | None,
    _option(
        "Expert",
        "--prompt-embeds",
        help="A prompt's embedding (length, width), instead of a prompt.",
        metavar="FILE.npy",
    ),
]
