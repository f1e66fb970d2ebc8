# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a whole: which commands there are, and how errors become exit codes.

Each command lives in a module of its own, `ejectable.cli.<command>`, imported only when it is typed: that keeps
start-up short, and a command cannot slow down another one.
"""

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ejectable.cli.coercion import use_plain_types
from ejectable.errors import EjectableError, Missing, OurFault
from ejectable.report.text import clean

__all__ = ["COMMANDS", "load", "run"]

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
EXIT_OK = 0
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_USAGE = 64


class _Listed(TyperCommand):
    """A command as --help and completion list it: its name and its line, nothing imported."""


class _LazyGroup(TyperGroup):
    """Lists every command by name, and imports the one that is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        return _Listed(name=cmd_name, short_help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            return args[0], load(args[0]), args[1:]
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]  # only their names, for "did you mean"
        return super().resolve_command(ctx, args)


def load(name: str) -> Any:
    """The command of this name, imported."""
    command = typer.main.get_command(importlib.import_module(f"ejectable.cli.{name}").app)
    command.name = name
    use_plain_types(command)
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
        use_plain_types(command)
        result = command.main(args=list(arguments), prog_name="ejectable", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        show() if show else typer.echo(str(error), err=True)
        return EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED  # who pressed the keys knows why it ended
    except BrokenPipeError:
        return _reader_went_away()
    except EjectableError as error:
        if debug:
            traceback.print_exc()
        return _report(error)
    except MemoryError:
        return _report(Missing("There is not enough memory.", hint="Give it more, or lower --max-unpacked."))
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _reader_went_away()
        if debug:
            traceback.print_exc()
        return _report(Missing(f"The system refused: {error}.", hint="Is there room, and a permission?"))
    except SystemExit as error:  # Typer's completion options leave this way
        return EXIT_OK if not error.code else EXIT_USAGE
    except Exception as error:  # noqa: BLE001  (the last wall: a traceback is no answer)
        if debug:
            traceback.print_exc()
        return _report(
            OurFault(
                f"This is a bug in ejectable: {type(error).__name__}: {error}",
                hint="Run the same command with --debug and report what it prints.",
            )
        )
    if not isinstance(result, int):
        return EXIT_OK
    return EXIT_USAGE if result == 1 else result  # 1 is only Typer's: a shell that it has no completion for


def _reader_went_away() -> int:
    # As with `| head`: nothing to say, and nothing may be said when Python flushes at exit either.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    return 128 + signal.SIGPIPE


def _report(error: EjectableError) -> int:
    lines = [f"ejectable: {error.message}", *([f"  {error.hint}"] if error.hint else [])]
    with suppress(OSError, ValueError):
        sys.stderr.write("".join(f"{clean(line)}\n" for line in lines))
    return error.exit_code
