"""The options of the commands: one type for each, in the groups that help lists them by."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import __version__


def option(group: str, *names: str, help: str, metavar: str | None = None) -> Any:
    """Return an option in a group of the help."""
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=group)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlx-zimage {__version__}")
        raise typer.Exit


# Model

MODELS = "demo, turbo or base, a Hub repo id (owner/name), a folder or a file"
Model = Annotated[
    str | None,
    option("Model", "--model", help=f"{MODELS}. Default: turbo.", metavar="MODEL"),
]
Quantize = Annotated[
    str | None,
    option(
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
    option(
        "Model",
        "--no-cache",
        help="With --q: quantize in memory each time, and keep no quantized copy of a large model.",
    ),
]
Dtype = Annotated[
    str | None,
    option(
        "Model",
        "--dtype",
        help="Type to compute in: bfloat16, float16 or float32. Default: the device's fast one.",
        metavar="TYPE",
    ),
]
Loras = Annotated[
    list[str] | None,
    option(
        "Model",
        "--lora",
        help="A LoRA, with its scale: a .safetensors file, a name in --lora-folder, or "
        "owner/repo/file on the Hub; repeatable. The command `loras FILE` describes it.",
        metavar="FILE[:SCALE]",
    ),
]
LoraFolder = Annotated[
    Path | None,
    option(
        "Model",
        "--lora-folder",
        help="Where LoRAs are known by their names. MLX_ZIMAGE_LORAS may name folders as well.",
        metavar="FOLDER",
    ),
]
Revision = Annotated[
    str | None,
    option("Model", "--revision", help="Branch, tag or commit on the Hub.", metavar="NAME"),
]
Download = Annotated[
    bool,
    option("Model", "--download", help="Download a missing model from the Hub without asking."),
]
Offline = Annotated[
    bool,
    option("Model", "--offline", help="Never contact the Hub, not even to ask for sizes."),
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
    option("Memory", "--estimate", help="Print the memory that a picture takes, and draw none."),
]

# Input

PromptFile = Annotated[
    str | None,
    option(
        "Input",
        "--prompt-file",
        help="One prompt a line, or JSON lines with a request's fields; - is standard input.",
        metavar="FILE",
    ),
]
Replay = Annotated[
    Path | None,
    option(
        "Input",
        "--replay",
        help="Make this picture again; options beside it change it.",
        metavar="FILE",
    ),
]

# Output

Output = Annotated[
    str | None,
    option(
        "Output",
        "--output",
        "-o",
        help="A .png, .jpg, .webp or .avif file, or a folder (pics/). Missing folders are made. "
        "Several seeds are added to the name. Default: zimage-SEED.png.",
        metavar="PATH",
    ),
]
Overwrite = Annotated[
    bool, option("Output", "--overwrite", help="Replace output files that exist.")
]
SaveLatents = Annotated[
    Path | None,
    option(
        "Output",
        "--save-latents",
        help="Write the final latents of one picture.",
        metavar="FILE.npy",
    ),
]
SaveEmbeds = Annotated[
    Path | None,
    option(
        "Output",
        "--save-embeds",
        help="Write the prompt's embedding of one picture.",
        metavar="FILE.npy",
    ),
]
NoMetadata = Annotated[
    bool, option("Output", "--no-metadata", help="Do not write the request into the picture.")
]
SkipExisting = Annotated[
    bool,
    option(
        "Output",
        "--skip-existing",
        help="Keep pictures that are there already, to go on with what was stopped.",
    ),
]
Preview = Annotated[
    str | None,
    option(
        "Output",
        "--preview",
        help="Show each step: in a .png or .jpg file, or - for the terminal (iTerm2, kitty).",
        metavar="FILE",
    ),
]
PreviewDecoder = Annotated[
    Path | None,
    option(
        "Output",
        "--preview-decoder",
        help="A TAEF1 .safetensors file, for sharper previews.",
        metavar="FILE",
    ),
]
Quiet = Annotated[
    bool, option("Output", "--quiet", help="Print results alone: no progress, no notes.")
]
Json = Annotated[
    bool,
    option("Output", "--json", help="Print one JSON object a line for each event, and no text."),
]

Version = Annotated[
    bool,
    typer.Option(
        "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
    ),
]
