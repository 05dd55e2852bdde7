"""The parser's rules that Typer lacks: help in groups, `--seed 1 2 3`, and each option once."""

import re
from itertools import zip_longest
from typing import Any

import typer
from typer.core import TyperCommand

LISTS = ("--seed", "-s", "--size")
"""Options that take numbers until something else follows: `--seed 1 2 3`."""
DEFAULTS = {"--focus": "32"}
"""Options whose number may be left out."""
WIDEST = 26
"""Characters of an option's names that its help stands beside."""
OTHER = "Other"
"""The group of options that have none; it comes last."""
NUMBERS = re.compile(r"[0-9][0-9x,-]*")


class UsageError(typer.BadParameter):
    """Wrong usage that is found after parsing; the message stands alone."""

    def format_message(self) -> str:
        return self.message


class Command(TyperCommand):
    """A command whose options are listed by their `rich_help_panel`, without rich."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        repeatable = {name for param in self.params if param.multiple for name in param.opts}
        args = spread(args, repeatable.intersection(LISTS))
        known = {name for param in self.params for name in param.opts}
        args = completed(args, {name: v for name, v in DEFAULTS.items() if name in known})
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for param in order:
            takes_many = param.multiple or getattr(param, "is_flag", True)  # an argument has none
            if not takes_many and order.count(param) > 1:
                raise UsageError(f"{max(param.opts, key=len)} is given twice")
        ctx.allow_extra_args = True  # they are refused here, with a hint
        extra = super().parse_args(ctx, args)
        if extra:
            raise UsageError(
                f"unexpected argument: {extra[0]!r}; a text of several words needs quotes"
            )
        return extra

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(_usage(param) for param in self.params if _is_argument(param))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                group = getattr(param, "rich_help_panel", None)
                if _is_argument(param):
                    record = (_name(param), record[1].removesuffix("[required]").rstrip())
                    group = group or "Arguments"
                groups.setdefault(group or OTHER, []).append(record)
        lengths = [len(names) for records in groups.values() for names, _ in records]
        width = max(length for length in lengths if length <= WIDEST)  # others get a line
        other = groups.pop(OTHER, [])
        for group, records in [*groups.items(), (OTHER, other)]:
            with formatter.section(group):
                formatter.write_dl([(names.ljust(width), text) for names, text in records])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            with formatter.section("Examples"):
                lines = [f"{ctx.command_path} {line}" for line in self.epilog.splitlines()]
                formatter.write_text("\n".join(["\b", *lines]))


def spread(arguments: list[str], lists: set[str]) -> list[str]:
    """Return `arguments` with an option of `lists` repeated before each of its numbers."""
    result: list[str] = []
    option = ""  # the option of `lists` whose numbers are being read
    needs_value = False
    for position, argument in enumerate(arguments):
        if needs_value:
            needs_value = False
        elif argument == "--":
            return result + arguments[position:]
        elif argument.startswith("-"):
            name, equals, _ = argument.partition("=")
            option = name if name in lists else ""
            needs_value = bool(option) and not equals
        elif option and NUMBERS.fullmatch(argument):
            result.append(option)
        else:
            option = ""
        result.append(argument)
    return result


def completed(arguments: list[str], defaults: dict[str, str]) -> list[str]:
    """Return `arguments` with the number of an option of `defaults` where it is left out."""
    result: list[str] = []
    for argument, following in zip_longest(arguments, arguments[1:]):
        result.append(argument)
        if argument == "--":
            return result + arguments[len(result) :]
        if argument in defaults and not NUMBERS.fullmatch(following or ""):
            result.append(defaults[argument])
    return result


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _name(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _usage(param: Any) -> str:
    name = _name(param) + (" ..." if param.nargs == -1 else "")
    return name if param.required else f"[{name}]"
