"""The options of the commands: one type for each, in the groups that help lists them by."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__


def _option(group: str, *names: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=group)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlx-zimage {__version__}")
        raise typer.Exit


# Picture

Words = Annotated[
    str | None,
    typer.Argument(
        help="What to draw, in quotes; the same as --prompt.",
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
        help="What to keep out of the picture; needs guidance above 0.",
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

# Model

MODELS = "demo, turbo or base, a Hub repo id (owner/name), a folder or a file"
Model = Annotated[str, _option("Model", "--model", help=f"{MODELS}.", metavar="MODEL")]
Quantize = Annotated[
    str | None,
    _option(
        "Model",
        "--q",
        "-q",
        help="Quantize the weights to 3, 4, 5, 6 or 8 bits, or to mxfp4, mxfp8 or nvfp4. "
        "Default: as they are stored.",
        metavar="BITS",
    ),
]
NoCache = Annotated[
    bool,
    _option(
        "Model",
        "--no-cache",
        help="With --q: quantize in memory each time, and keep no quantized copy of a large model.",
    ),
]
Dtype = Annotated[
    str | None,
    _option(
        "Model",
        "--dtype",
        help="Type to compute in: bfloat16, float16 or float32. Default: the device's fast one.",
        metavar="TYPE",
    ),
]
Revision = Annotated[
    str | None,
    _option("Model", "--revision", help="Branch, tag or commit on the Hub.", metavar="NAME"),
]
Download = Annotated[
    bool,
    _option("Model", "--download", help="Download a missing model from the Hub without asking."),
]
Offline = Annotated[
    bool,
    _option("Model", "--offline", help="Never contact the Hub, not even to ask for sizes."),
]

# Memory

MEMORY = """\
How the components (text encoder, transformer, VAE) are held in memory.

\b
auto      the first of these that fits (default)
resident  all components stay loaded; fastest
staged    only the component in use is loaded
low       only the block in use, read from disk
          in each step; slowest, least memory
"""
Memory = Annotated[
    str, typer.Option(help=MEMORY, metavar="MODE", rich_help_panel="Memory", show_default=False)
]
Estimate = Annotated[
    bool,
    _option("Memory", "--estimate", help="Print the memory that a picture takes, and draw none."),
]

# Output

Output = Annotated[
    str | None,
    _option(
        "Output",
        "--output",
        "-o",
        help="A .png, .jpg, .jpeg or .webp file, or a folder (pics/). Missing folders are made. "
        "Several seeds are added to the name. Default: zimage-SEED.png.",
        metavar="PATH",
    ),
]
Overwrite = Annotated[
    bool, _option("Output", "--overwrite", help="Replace output files that exist.")
]
SaveLatents = Annotated[
    Path | None,
    _option(
        "Output",
        "--save-latents",
        help="Write the final latents of one picture.",
        metavar="FILE.npy",
    ),
]
SaveEmbeds = Annotated[
    Path | None,
    _option(
        "Output",
        "--save-embeds",
        help="Write the prompt's embedding of one picture.",
        metavar="FILE.npy",
    ),
]
Quiet = Annotated[
    bool, _option("Output", "--quiet", help="Print results alone: no progress, no notes.")
]
Json = Annotated[
    bool,
    _option("Output", "--json", help="Print one JSON object a line for each event, and no text."),
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
Schedule = Annotated[
    str | None,
    _option(
        "Expert",
        "--schedule",
        help="'legacy' (diffusers before 0.39), or noise levels: 1,0.8,0.5.",
        metavar="NAME",
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

Version = Annotated[
    bool,
    typer.Option(
        "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
    ),
]
