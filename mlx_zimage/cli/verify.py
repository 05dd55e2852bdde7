"""`verify` a converted checkpoint, or the files of a published model."""

from pathlib import Path
from typing import Annotated

import typer

from .. import check_output, list_published, locate, verify_checkpoint, verify_published
from . import options as o
from .models import usage
from .parsing import UsageError
from .progress import reporter

Against = Annotated[
    str | None,
    typer.Option(
        help="Compare with the files of a published model: turbo, base, a Hub repo id, or a list "
        "that --save wrote or sha256sum or md5sum printed.",
        metavar="PUBLISHED",
    ),
]


def verify(
    folder: Annotated[
        str,
        typer.Argument(
            help="A folder that convert wrote; with --against, any model.", metavar="FOLDER"
        ),
    ],
    against: Against = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Save the list of published files, for use offline.", metavar="FILE"),
    ] = None,
    revision: o.Revision = None,
    json: o.Json = False,
) -> None:
    """Check a converted checkpoint, or the files of a published model.

    A converted one must have the hashes and shapes that its manifest lists, and finite numbers.
    With --against, missing, damaged and changed files of a published model are told.
    """
    report = reporter(json)
    if against is None:
        if save is not None or revision is not None:
            raise UsageError(f"{'--save' if save else '--revision'} is for --against; leave it out")
        for name in verify_checkpoint(Path(folder)):
            report.result(f"{name}: ok", "verified", name=name)
        return
    with usage():
        place = Path(folder) if Path(folder).is_dir() else locate(folder)
        if save is not None:
            check_output(save, ".json")
        published = list_published(against, revision, folder=place)
    if save is not None:
        published.save(save)
    for file in verify_published(place, published):
        fields = {"name": file.name, "state": file.state}
        report.result(f"{file.name}: {file.reason}", "verified", **fields)
