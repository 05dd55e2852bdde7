"""`convert`: a checkpoint in another precision."""

from pathlib import Path
from typing import Annotated

import typer

from ..checkpoints.convert import convert as run
from ..checkpoints.hub import locate

SOURCE = "A name (demo, turbo, base), a Hub repo id, or a folder in the official layout."


def convert(
    source: Annotated[str, typer.Argument(help=SOURCE)],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
) -> None:
    """Copy a checkpoint folder with every weight cast to one precision."""
    for done in run(locate(source), out, dtype=dtype, force=force):
        typer.echo(f"{done.number} of {done.total}: {done.file}", err=True)
    typer.echo(str(out))
