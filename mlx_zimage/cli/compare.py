"""`compare`: how alike two pictures are."""

import math
from pathlib import Path
from typing import Annotated

import typer

from .. import check_output, compare_pictures, save_picture
from . import options as o
from .outputs import PICTURES
from .progress import reporter

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="A picture of both side by side, with their difference.",
        metavar="FILE",
    ),
]


def compare(
    first: Annotated[str, typer.Argument(help="A picture.", metavar="A")],
    second: Annotated[str, typer.Argument(help="Another of the same size.", metavar="B")],
    output: Output = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Compare two pictures.

    Shows PSNR, SSIM, the largest difference of two bytes, and the share of pixels that differ.
    """
    if output is not None:
        check_output(output, PICTURES, overwrite=overwrite)
    found = compare_pictures(first, second)
    if output is not None:
        names = Path(first).name, Path(second).name
        labels = names if names[0] != names[1] else (first, second)
        save_picture(found.picture(labels), output, None, overwrite=overwrite)
    reporter(json).result(
        found.summary,
        "comparison",
        psnr=found.psnr if math.isfinite(found.psnr) else None,
        ssim=found.ssim,
        largest=found.largest,
        differing=found.differing,
        identical=found.identical,
        file=None if output is None else str(output),
    )
