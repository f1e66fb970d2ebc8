# SPDX-License-Identifier: GPL-2.0-or-later
"""What every command understands: the common options, and the way a command is declared.

A command's module looks like this:

    app = command_app()

    @app.command(epilog=examples("ejectable kernel vmlinuz-6.8.0-31-generic"))
    @with_common
    def kernel(paths: Annotated[list[str], typer.Argument(...)], *, common: Common) -> int:
        '''Does this kernel carry the defect?'''

`with_common` takes the parameter `common` out of the signature that Typer sees and puts the common options in its
place. The function returns its exit code.
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import typer

from ejectable.errors import WrongUsage
from ejectable.intake.limits import DEFAULT_LIMITS, Limits
from ejectable.model import EXIT_AFFECTED, EXIT_OK, EXIT_UNKNOWN

__all__ = ["Common", "choose", "command_app", "examples", "size", "with_common"]

A = TypeVar("A")
PANEL_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


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


def command_app() -> typer.Typer:
    """A Typer app for the one command of a module."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def examples(*lines: str) -> str:
    """The epilog of a command: each line stays as it is. `("# what for", "ejectable ...")` alternate as you like."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def size(text: str) -> int:
    """A number of bytes, as people write it: 500M, 2G, 2GiB, 1073741824; raises `WrongUsage`."""
    match = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match or not int(match[1]):
        raise WrongUsage(f"{text!r} is not a size.", hint="Write a number of bytes, or one with K, M, G or T: 4G.")
    return int(match[1]) * PANEL_UNITS[match[2]]


def choose(offered: Mapping[str, A], wanted: tuple[str, ...]) -> dict[str, A]:
    """The advisories that `--advisory` asks for (all where it is not given), by id; raises `WrongUsage`."""
    if not wanted:
        return dict(offered)
    by_name = {name.upper(): name for name in offered}
    chosen = {}
    for name in wanted:
        if name.upper() not in by_name:
            raise WrongUsage(f"There is no advisory {name!r}.", hint=f"There are: {', '.join(sorted(offered))}.")
        chosen[by_name[name.upper()]] = offered[by_name[name.upper()]]
    return chosen


def with_common(
    function: Callable[..., int] | None = None, *, formats: tuple[str, ...] = ("text", "json")
) -> Callable[..., Any]:
    """Give a command the common options; `formats` are the values of its `--format`, the default first."""
    if function is None:
        return lambda decorated: with_common(decorated, formats=formats)
    call = function

    @wraps(call)
    def run(**values: Any) -> int:
        chosen = {name: values.pop(name) for name in _parameters(formats)}
        common = Common(
            format=chosen["format"],
            advisory=tuple(chosen["advisory"] or ()),
            cache=not chosen["no_cache"],
            jobs=chosen["jobs"] or _processors(),
            quiet=chosen["quiet"],
            debug=chosen["debug"],
            color=not chosen["no_color"],
            limits=_limits(chosen["max_unpacked"]),
            exit_zero=chosen["exit_zero"],
        )
        return call(**values, common=common)

    own = [p for p in inspect.signature(call, eval_str=True).parameters.values() if p.name != "common"]
    common_parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in _parameters(formats).items()
    ]
    setattr(run, "__signature__", inspect.Signature([*own, *common_parameters]))  # noqa: B010  (mypy knows no such attribute)
    return run


def _parameters(formats: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Name → (annotation, default) of each common option, in the order --help shows them."""
    one_of: Any = Literal[formats]
    return {
        "format": (Annotated[one_of, typer.Option("--format", help="What to print.")], formats[0]),
        "advisory": (
            Annotated[
                list[str] | None,
                typer.Option("--advisory", metavar="ID", help="Ask about this defect only; may be repeated."),
            ],
            None,
        ),
        "no_cache": (Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep earlier verdicts.")], False),
        "jobs": (
            Annotated[
                int, typer.Option("--jobs", "-j", metavar="N", min=0, max=1024, help="How many at once; 0: by CPUs.")
            ],
            0,
        ),
        "max_unpacked": (
            Annotated[
                str, typer.Option("--max-unpacked", metavar="SIZE", help="Refuse an input that unpacks to more.")
            ],
            "2G",
        ),
        "exit_zero": (
            Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 where it would be 2 or 3.")],
            False,
        ),
        "quiet": (Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer only; no progress.")], False),
        "no_color": (Annotated[bool, typer.Option("--no-color", help="No colour; so does NO_COLOR=1.")], False),
        "debug": (Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")], False),
    }


def _processors() -> int:
    return len(os.sched_getaffinity(0)) or 1


def _limits(text: str) -> Limits:
    unpacked = size(text)
    if unpacked == DEFAULT_LIMITS.unpacked:
        return DEFAULT_LIMITS
    return msgspec.structs.replace(
        DEFAULT_LIMITS, unpacked=unpacked, in_memory=min(max(unpacked // 4, 1), max(DEFAULT_LIMITS.in_memory, unpacked))
    )
