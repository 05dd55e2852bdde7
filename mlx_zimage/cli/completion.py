"""Completion for zsh, bash and fish: scripts that hold all commands and options.

A script answers TAB at once, as it does not start the program; it is installed anew after an
update.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .parsing import UsageError

SHELLS = ("zsh", "bash", "fish")
VALUES: Mapping[str, Sequence[str]] = {
    "--model": ("demo", "turbo", "base"),
    "--q": ("3", "4", "5", "6", "8", "mxfp4", "mxfp8", "nvfp4"),
    "--q-text-encoder": ("3", "4", "5", "6", "8"),
    "--dtype": ("bfloat16", "float16", "float32"),
    "--memory": ("auto", "resident", "staged", "low"),
    "--fit": ("crop", "pad", "stretch"),
    "--sampler": ("euler", "euler_ancestral", "res_multistep", "dpmpp_2m", "twinflow"),
    "--schedule": ("simple", "sgm_uniform", "normal", "beta", "legacy"),
    "--noise": ("torch-cpu", "torch-cuda:4090", "mlx"),
    "--aspect": ("21:9", "16:9", "3:2", "4:3", "1:1", "3:4", "2:3", "9:16"),
    "--only": ("transformer", "text_encoder", "vae"),
    "--group-size": ("32", "64", "128"),
}
"""The values of options that take one of a short list."""
FILES = ("FILE", "PATH", "FOLDER")
"""Words in the names of values that are files."""


@dataclass(frozen=True)
class Flag:
    """An option as a shell needs it."""

    names: tuple[str, ...]
    help: str
    metavar: str | None  # None: it takes no value
    is_repeatable: bool

    @classmethod
    def of(cls, param: Any) -> "Flag":
        names = (*param.opts, *param.secondary_opts)
        first_line = (param.help or "").strip().partition("\n")[0]
        metavar = None if param.is_flag else param.metavar or "VALUE"
        return cls(names, first_line, metavar, param.multiple)

    @property
    def values(self) -> Sequence[str]:
        return next((VALUES[name] for name in self.names if name in VALUES), ())

    @property
    def is_file(self) -> bool:
        return any(word in (self.metavar or "") for word in FILES)


Commands = Mapping[str, tuple[str, list[Flag]]]
"""By their names: what a command does, and its options."""


def commands_of(group: Any) -> Commands:
    """Return the commands of the program, from the parser's group."""
    return {
        name: (
            command.get_short_help_str(200),
            [Flag.of(p) for p in command.params if p.param_type_name == "option"],
        )
        for name, command in group.commands.items()
    }


def this_shell() -> str:
    """Return the name of the person's shell."""
    return os.path.basename(os.environ.get("SHELL", ""))


def script(shell: str, program: str, commands: Commands) -> str:
    """Return the script for a shell."""
    writers = {"zsh": _zsh, "bash": _bash, "fish": _fish}
    if shell not in writers:
        known = f"{', '.join(SHELLS[:-1])} or {SHELLS[-1]}"
        raise UsageError(f"the shell must be {known}, not {shell!r}; name it after the option")
    return writers[shell](program, commands)


def install(shell: str, program: str, commands: Commands) -> tuple[Path, str]:
    """Write the script to where the shell finds it; return its file and what remains to do."""
    text = script(shell, program, commands)
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share")
    again = "open a new terminal"
    file, rest = {
        "fish": (config / f"fish/completions/{program}.fish", again),
        "bash": (
            data / f"bash-completion/completions/{program}",
            f"{again}; without the package bash-completion, add to ~/.bashrc: source "
            f"{data}/bash-completion/completions/{program}",
        ),
        "zsh": (
            home / f".zfunc/_{program}",
            f"{again}; if ~/.zshrc does not have it yet, add: "
            "fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit",
        ),
    }[shell]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file, rest


def _identifier(program: str) -> str:
    return "_" + re.sub(r"\W", "_", program)


def _bash(program: str, commands: Commands) -> str:
    cases, values = [], []
    for name, (_, flags) in commands.items():
        words = " ".join(n for flag in flags for n in flag.names if n.startswith("--"))
        cases.append(f'    {name}) options="{words}" ;;')
        for flag in [flag for flag in flags if flag.values]:
            pattern = "|".join(f'"{name} {option}"' for option in flag.names)
            values.append(f'    {pattern}) words="{" ".join(flag.values)}" ;;')
    lines = [
        f"# completion of {program} for bash",
        f"{_identifier(program)}() {{",
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
        "  local words= options=",
        '  case "${COMP_WORDS[1]} $before" in',
        *values,
        "  esac",
        '  case "${COMP_WORDS[1]}" in',
        *cases,
        "  esac",
        f'  if ((COMP_CWORD == 1)); then words="{" ".join(commands)} --help --version"',
        '  elif [[ -z $words && $word == -* ]]; then words="$options"; fi',
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "}",
        f"complete -o default -F {_identifier(program)} {program}",
    ]
    return "\n".join(lines) + "\n"


def _zsh(program: str, commands: Commands) -> str:
    lines = [f"#compdef {program}", f"{_identifier(program)}() {{", "  local -a commands"]
    lines.append("  commands=(")
    lines += [f"    {_quoted(f'{_colons(n)}:{text}')}" for n, (text, _) in commands.items()]
    lines += ["  )", "  if ((CURRENT == 2)); then _describe command commands; return; fi"]
    lines += ['  local name="$words[2]"', "  shift words; ((CURRENT--))", '  case "$name" in']
    for name, (_, flags) in commands.items():
        lines.append(f"    {name}) _arguments -s \\")
        lines += [f"      {_zsh_flag(flag, option)} \\" for flag in flags for option in flag.names]
        lines += ["      '*:file:_files' ;;"]
    lines += ["  esac", "}", f'if [[ "$funcstack[1]" == "_{program}" ]]; then']
    lines += [
        f'  {_identifier(program)} "$@"',
        "else",
        f"  compdef {_identifier(program)} {program}",
    ]
    return "\n".join([*lines, "fi"]) + "\n"


def _zsh_flag(flag: Flag, option: str) -> str:
    text = re.sub(r"([\[\]\\:])", r"\\\1", flag.help)
    spec = f"{'*' if flag.is_repeatable else ''}{option}[{text}]"
    if flag.metavar is not None:
        words = " ".join(_colons(value) for value in flag.values)
        action = f"({words})" if words else "_files" if flag.is_file else " "
        spec += f":{_colons(flag.metavar)}:{action}"
    return _quoted(spec)


def _colons(text: str) -> str:
    return text.replace(":", "\\:")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(program: str, commands: Commands) -> str:
    names = " ".join(commands)
    lines = [f"# completion of {program} for fish"]
    first = f"-n 'not __fish_seen_subcommand_from {names}'"
    for name, (text, flags) in commands.items():
        lines.append(f"complete -c {program} {first} -f -a {name} -d {_fish_quoted(text)}")
        for flag in flags:
            lines.append(_fish_flag(program, name, flag))
    return "\n".join(lines) + "\n"


def _fish_flag(program: str, name: str, flag: Flag) -> str:
    words = [f"complete -c {program} -n '__fish_seen_subcommand_from {name}'"]
    words += [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in flag.names]
    if flag.metavar is not None:
        words.append("-r" if flag.is_file else "-x")
    if flag.values:
        words.append(f"-a {_fish_quoted(' '.join(flag.values))}")
    return " ".join([*words, f"-d {_fish_quoted(flag.help)}"])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
