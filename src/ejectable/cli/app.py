# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a whole: which commands there are, and how errors become exit codes.

Each command lives in a module of its own, `ejectable.cli.<command>`, imported only when it is typed: that keeps
start-up short, and a command cannot slow down another one.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from ejectable.errors import EjectableError, OurFault

__all__ = ["COMMANDS", "run"]

# Command → (one line for --help). The module ejectable.cli.<command> holds a Typer app of one command, `app`.
COMMANDS: dict[str, str] = {
    "check": "Would this machine crash if a virtio device were unplugged now?",
    "kernel": "Does this kernel carry the defect?",
    "crash": "Is this crash the defect, and what was it?",
    "lab": "What happens when it is really unplugged? Boots the kernel in QEMU.",
    "fix": "What do I do about it, and is it done?",
    "explain": "What does this word or advisory mean?",
    "schema": "Print the JSON Schema of a document.",
}
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_USAGE = 64
EXIT_OURS = 70


class _LazyGroup(TyperGroup):
    """Lists every command by name, and imports the one that is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ejectable.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_LazyGroup,
    name="ejectable",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(
    epilog="Exit codes: 0 nothing to fear, 2 affected, 3 unknown, 64 wrong usage, 65 bad input, 69 something "
    "missing, 70 our fault. `ejectable COMMAND --help` shows examples."
)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    """Will this Linux kernel crash when a virtio device is unplugged, and what do I do about it?"""
    if version:
        from ejectable import __version__

        typer.echo(f"ejectable {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code is the contract's."""
    debug = "--debug" in arguments
    try:
        command: Any = typer.main.get_command(app)
        result = command.main(args=list(arguments), prog_name="ejectable", standalone_mode=False)
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        show() if show else typer.echo(str(error), err=True)
        return EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("ejectable: interrupted\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away (| head): nothing to say, and nothing may be said at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except EjectableError as error:
        if debug:
            raise
        return _report(error)
    except Exception as error:  # the last wall: a traceback is no answer
        if debug:
            raise
        return _report(
            OurFault(
                f"This is a bug in ejectable: {type(error).__name__}: {error}",
                hint="Run the same command with --debug and report what it prints.",
            )
        )
    return result if isinstance(result, int) else 0


def _report(error: EjectableError) -> int:
    sys.stderr.write(f"ejectable: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"  {error.hint}\n")
    return error.exit_code
