"""The options of `generate` as requests: each with the name of its picture."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import Replay, Request
from .. import replay as read_replay
from . import values
from .models import usage
from .outputs import PICTURES, read_array
from .parsing import UsageError
from .prompts import Line, fields_of, read_lines, request_of

AS_THEY_ARE = (
    "negative_prompt",
    "width",
    "height",
    "steps",
    "cfg_normalization",
    "cfg_truncation",
    "noise",
    "image",
    "strength",
    "fit",
    "mask",
    "mask_softness",
    "keep_unmasked",
    "sampler",
    "shift",
    "variety",
    "variation_of",
    "variation_strength",
    "hires",
    "hires_strength",
)
"""Options that have the name and the type of their field."""
LETTERS = 40  # of a prompt in a file's name


@dataclass(frozen=True)
class Item:
    """A request, and what its picture is called: a seed, or a number with the prompt's words."""

    request: Request
    tag: int | str | None
    index: int = 0  # of the picture in its request
    is_random: bool = False  # the seed is no one's wish

    @property
    def wanted(self) -> Request:
        """The request as far as it is asked for, to tell whether a picture answers it."""
        return self.request.replace(seed=None) if self.is_random else self.request


@dataclass(frozen=True)
class Order:
    """The pictures that a command line asks for."""

    lines: Sequence[Line] | None  # None: of standard input, as they come
    fields: Mapping[str, Any]  # that all lines share
    seeds: list[int] | None
    count: int | None
    replayed: Path | None = None
    numbered: bool = False  # pictures are named after their prompt

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> "Order":
        """Read the options, and the files that hold prompts."""
        prompts = prompts_from(options["words"], options["prompt"])
        fields, count = fields_from(options), options["count"]
        seeds = values.seeds(options["seed"], count)
        if count is not None and not 1 <= count <= values.MAX_PICTURES:
            raise UsageError(f"--count must be from 1 to {values.MAX_PICTURES}, not {count}")
        file, replayed = options["prompt_file"], options["replay"]
        if sum(map(bool, (prompts, file is not None))) > 1:
            raise UsageError("--prompt-file brings the prompts; leave out the prompt")
        if file is not None and replayed is not None:
            raise UsageError("--replay has a prompt; leave out --prompt-file")
        if replayed is not None and len(prompts) > 1:
            raise UsageError("--replay makes one picture again; give one prompt")
        lines: Sequence[Line] | None = [Line({"prompt": prompt}) for prompt in prompts]
        if file is not None:
            lines = None if file == "-" else [*read_lines(file)]
            if lines is not None and not lines:
                raise UsageError(f"{values.shown(file)} holds no prompt")
        elif not lines:
            lines = [Line({})]
            if replayed is None and "prompt_embeds" not in fields:
                raise UsageError('a prompt is needed: generate "a red fox"')
        numbered = file is not None or len(prompts) > 1
        if options["skip_existing"] and count is not None and not numbered:
            raise UsageError("--skip-existing knows pictures by their seeds; give --seed")
        order = cls(lines, fields, seeds, count, replayed, numbered)
        if options["aspect"] is None and lines is not None:
            [*order.items()]  # refused before a model is looked for
        elif file == "-" and options["estimate"]:
            raise UsageError("--estimate is for one picture; leave out --prompt-file -")
        return order

    @property
    def jobs(self) -> int | None:
        """The number of pictures, None where it is not known."""
        if self.lines is None:
            return None
        return len(self.lines) * (len(self.seeds or ()) or self.count or 1)

    @property
    def suffix(self) -> str:
        """The ending of default names: as that of the picture that is made again."""
        suffix = "" if self.replayed is None else self.replayed.suffix.lower()
        return suffix if suffix in PICTURES else ".png"

    def sized(self, sides: Mapping[str, int]) -> "Order":
        return replace(self, fields={**self.fields, **sides})

    def items(self) -> Iterator[Item]:
        """Yield a request for each prompt and seed: seeds that are listed, or random ones."""
        lines = read_lines("-") if self.lines is None else self.lines
        for number, line in enumerate(lines, 1):
            if self.replayed is not None:
                yield from self._again(self.replayed, line)
            else:
                yield from self._of_line(number, line)

    def _of_line(self, number: int, line: Line) -> Iterator[Item]:
        merged = fields_of(line, self.fields)
        if "seed" in line.fields and (self.seeds or self.count):
            raise UsageError(f"{line.place} has a seed; leave out --seed and --count")
        seeds: Sequence[int | None] = self.seeds or [None]
        is_random = not self.seeds and "seed" not in merged and "latents" not in merged
        if is_random:
            seeds = [values.random_seed() for _ in range(self.count or 1)]
        for place, seed in enumerate(seeds, 1):
            request = request_of(line, merged if seed is None else {**merged, "seed": seed})
            tag = _seed_of(request)
            if self.numbered:
                tag = f"{number:03d}-{_slug(request.prompt)}"
                if len(seeds) > 1:  # by its place where it is random, to be the same again
                    tag = f"{tag}-{seed if self.seeds else place}"
            yield Item(request, tag, is_random=is_random)

    def _again(self, file: Path, line: Line) -> Iterator[Item]:
        changes = fields_of(line, self.fields)
        seeds: Sequence[int | None] = self.seeds or [None]
        if self.count is not None:
            seeds = [values.random_seed() for _ in range(self.count)]
        for seed in seeds:
            found = replayed(file, changes if seed is None else {**changes, "seed": seed})
            yield Item(found.request, _seed_of(found.request), found.index)


def replayed(file: Path, changes: Mapping[str, Any]) -> Replay:
    with usage():
        return read_replay(file, **changes)


def _seed_of(request: Request) -> int | str | None:
    return request.seed if isinstance(request.seed, int) else None


def fields_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that the options set, except prompts and seeds."""
    fields = {name: options[name] for name in AS_THEY_ARE}
    fields["guidance"] = values.guidance_of(options["guidance"], options["cfg"])
    fields["schedule"] = values.levels(options["schedule"])
    fields["latents"] = read_array(options["latents"])
    fields["prompt_embeds"] = read_array(options["prompt_embeds"])
    fields["outpaint"] = values.border(options["outpaint"])
    fields["nag"] = values.nag(options["nag"])
    fields["focus"] = values.margin(options["focus"])
    if options["size"] is not None:
        if options["width"] is not None or options["height"] is not None:
            raise UsageError("--size sets width and height; leave out --width and --height")
        fields["width"], fields["height"] = values.size(options["size"])
    _check_aspect(options)
    return with_pictures({name: value for name, value in fields.items() if value is not None})


def with_pictures(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields whose pictures are read once, for all requests that share them."""
    names = [name for name in ("image", "mask") if name in fields]
    if names:
        with usage():
            read = Request("", **{name: fields[name] for name in names})
        fields |= {name: getattr(read, name) for name in names}
    return fields


def prompts_from(words: list[str] | None, prompt: str | None) -> list[str]:
    """Return the prompts of the arguments and of --prompt."""
    words = words or []
    if words and prompt is not None:
        raise UsageError(f"two prompts are given: {values.shown(words[0])} and --prompt")
    if len(words) > 1:
        for word in reversed(words):
            if _is_one_word(word):
                raise UsageError(
                    f"unexpected argument: {values.shown(word)}; a text of several words needs "
                    "quotes (and prompts of one word each a --prompt-file)"
                )
    return words or ([] if prompt is None else [prompt])


def _check_aspect(options: Mapping[str, Any]) -> None:
    if options["aspect"] is None:
        if options["megapixels"] is not None:
            raise UsageError("--megapixels has no effect without --aspect")
        return
    for name in ("size", "width", "height"):
        if options[name] is not None:
            raise UsageError(f"--aspect sets width and height; leave out --{name}")


def _is_one_word(text: str) -> bool:
    """Return whether a text is one word of a script that puts spaces between words."""
    return len(text.split()) == 1 and all(ord(letter) < 0x2E80 for letter in text)


def _slug(prompt: str | tuple[str, ...] | None) -> str:
    """Return a prompt's first words for a file's name."""
    text = prompt if isinstance(prompt, str) else " ".join(prompt or ("embeds",))
    words = re.sub(r"[\W_]+", "-", text.lower()).strip("-")
    if len(words) > LETTERS:
        words = words[:LETTERS].rpartition("-")[0] or words[:LETTERS]
    return words or "picture"
