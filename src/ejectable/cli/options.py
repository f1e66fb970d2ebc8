# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command is declared, and the options that every command understands.

A command's module looks like this:

    @command(examples=["ejectable kernel vmlinuz-6.8.0-31-generic"])
    @click.argument("paths", nargs=-1, metavar="PATH...")
    def kernel(common: Common, *, paths: tuple[str, ...]) -> int:
        '''Does this kernel carry the defect?'''

The function returns its exit code. What has no effect on a command is understood there and not offered: a script may
pass the same options to each.
"""

import os
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from ejectable.errors import WrongUsage
from ejectable.intake.limits import DEFAULT_LIMITS, Limits
from ejectable.model import EXIT_AFFECTED, EXIT_OK, EXIT_UNKNOWN

__all__ = ["Common", "WordList", "command", "size"]

HELP = ["-h", "--help"]
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Common(msgspec.Struct, frozen=True):
    """The values of the common options."""

    format: str = "text"
    advisory: tuple[str, ...] = ()
    cache: bool = True
    jobs: int = 1
    quiet: bool = False
    debug: bool = False
    color: bool = True  # False: --no-color; the terminal and NO_COLOR have their say too
    limits: Limits = DEFAULT_LIMITS
    exit_zero: bool = False

    @property
    def json(self) -> bool:
        """Whether the document was asked for."""
        return self.format == "json"

    def leave(self, code: int) -> int:
        """The exit code to return for a verdict: `--exit-zero` turns 2 and 3 into 0, and nothing else."""
        return EXIT_OK if self.exit_zero and code in (EXIT_AFFECTED, EXIT_UNKNOWN) else code


class WordList(click.ParamType[str]):
    """One word of a list, several with commas, or `all`: completed here, checked by whoever takes the value."""

    name = "words"

    def __init__(self, words: Callable[[], Sequence[str]]) -> None:
        self._words = words  # asked only when a shell completes: the list may cost an import

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  (click's)
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """The words that the last part of what was typed may become."""
        before, comma, last = incomplete.rpartition(",")
        offered = [*self._words(), *([] if comma else ["all"])]
        return [CompletionItem(before + comma + word) for word in offered if word.startswith(last)]


def command(
    *, examples: Sequence[str], formats: tuple[str, ...] = ("text", "json"), without: Collection[str] = ()
) -> Callable[[Callable[..., int]], click.Command]:
    """Make a function a command that has the common options; `examples` stand below its help as they are.

    `formats` are the values of --format, the default first; `without` names the common options that have no effect.
    """

    def declare(function: Callable[..., int]) -> click.Command:
        def call(**values: Any) -> int:
            return function(_common(values), **values)

        own = list(reversed(getattr(function, "__click_params__", [])))
        return click.Command(
            function.__name__,
            callback=call,
            params=[*own, *_options(formats, without)],
            help=function.__doc__,
            epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples),
            context_settings={"help_option_names": HELP, "max_content_width": 100},
        )

    return declare


def _options(formats: tuple[str, ...], without: Collection[str]) -> list[click.Parameter]:
    """The common options, in the order that --help shows them."""
    options = [
        click.Option(
            ["--format"], type=click.Choice(formats), default=formats[0], show_default=True, help="What to print."
        ),
        click.Option(
            ["--advisory"],
            multiple=True,
            metavar="ID",
            help="Ask about this defect only: an id, a short name, the beginning of a title, or all; may be repeated.",
            shell_complete=_advisories,
        ),
        click.Option(
            ["--advisories"],
            multiple=True,
            metavar="DIR",
            type=click.Path(readable=False),
            help="Ask about the defects in this folder too; it is code that is run.",
        ),
        click.Option(["--no-cache"], is_flag=True, help="Neither use nor keep earlier verdicts."),
        click.Option(
            ["--jobs", "-j"], type=click.IntRange(0, 1024), default=0, metavar="N", help="How many at once; 0: by CPUs."
        ),
        click.Option(
            ["--max-unpacked"],
            default="2G",
            show_default=True,
            metavar="SIZE",
            help="Refuse an input that unpacks to more.",
        ),
        click.Option(["--exit-zero"], is_flag=True, help="Exit with 0 where it would be 2 or 3."),
        click.Option(["--quiet", "-q"], is_flag=True, help="Print the answer only; no progress."),
        click.Option(["--no-color"], is_flag=True, help="No colour; so does NO_COLOR=1."),
        click.Option(["--debug"], is_flag=True, help="Show a traceback when something fails."),
    ]
    for option in options:
        option.hidden = option.name in without
    return list(options)


def _common(values: dict[str, Any]) -> Common:
    """The common options out of the values of a command line, which keeps its own."""
    if folders := values.pop("advisories"):
        from ejectable.advisories import add_folders

        add_folders(folders)
    return Common(
        format=values.pop("format"),
        advisory=tuple(values.pop("advisory")),
        cache=not values.pop("no_cache"),
        jobs=values.pop("jobs") or len(os.sched_getaffinity(0)) or 1,
        quiet=values.pop("quiet"),
        debug=values.pop("debug"),
        color=not values.pop("no_color"),
        limits=_limits(values.pop("max_unpacked")),
        exit_zero=values.pop("exit_zero"),
    )


def _advisories(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  (click's)
    from ejectable.advisories import registry

    return [name for name in registry() if name.upper().startswith(incomplete.upper())]


def size(text: str) -> int:
    """A number of bytes, as people write it: 500M, 2G, 2GiB, 1073741824; raises `WrongUsage`."""
    match = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not int(match[1]):
        raise WrongUsage(f"{text!r} is not a size.", hint="Write a number of bytes, or one with K, M, G or T: 4G.")
    return int(match[1]) * UNITS[match[2]]


def _limits(text: str) -> Limits:
    unpacked = size(text)
    if unpacked == DEFAULT_LIMITS.unpacked:
        return DEFAULT_LIMITS
    return msgspec.structs.replace(
        DEFAULT_LIMITS, unpacked=unpacked, in_memory=min(max(unpacked // 4, 1), max(DEFAULT_LIMITS.in_memory, unpacked))
    )
