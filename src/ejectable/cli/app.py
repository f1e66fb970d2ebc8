# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a whole: which commands there are, and how errors become exit codes.

Each command lives in a module of its own, `ejectable.cli.<command>`, imported only when it is typed: that keeps
start-up short, and a command cannot slow down another one.
"""

import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import click
from click.shell_completion import get_completion_class, shell_complete

from ejectable.cli.options import Common
from ejectable.cli.terminal import Terminal, complain
from ejectable.errors import Denied, EjectableError, Missing, OurFault, WrongUsage

__all__ = ["COMMANDS", "app", "load", "run"]

# Command → (one line for --help). The module ejectable.cli.<command> holds the command under its own name.
COMMANDS: dict[str, str] = {
    "check": "Would this machine crash if a virtio device were unplugged now?",
    "kernel": "Does this kernel carry the defect?",
    "crash": "Is this crash the defect, and what was it?",
    "lab": "What happens when it is really unplugged? Boots the kernel in QEMU.",
    "fix": "What do I do about it, and is it done?",
    "explain": "What does this word or advisory mean?",
    "advisory": "Is an advisory of your own fit for use?",
    "schema": "Print the JSON Schema of a document.",
}
EXIT_OK = 0
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_USAGE = 64
PROGRAM = "ejectable"
COMPLETION = "_EJECTABLE_COMPLETE"


class _LazyGroup(click.Group):
    """Lists every command by name, and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        # As --help and completion list it; resolve_command() has the command itself.
        return click.Command(cmd_name, short_help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in COMMANDS:
            return args[0], load(args[0]), args[1:]
        close = difflib.get_close_matches(args[0], COMMANDS, 1) if args else []
        if close and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)


def load(name: str) -> click.Command:
    """The command of this name, imported."""
    found: click.Command = getattr(importlib.import_module(f"ejectable.cli.{name}"), name)
    return found


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from ejectable import __version__

        click.echo(f"ejectable {__version__}")
        ctx.exit()


def _completion(ctx: click.Context, _param: click.Parameter, shell: str | None) -> None:
    """Print the script that makes a shell complete; of the shell that runs us, where none is named."""
    if shell is None:
        return
    shell = shell or Path(f"/proc/{os.getppid()}/comm").read_text(encoding="utf-8", errors="replace").strip()
    kind = get_completion_class(shell)
    if kind is None:
        raise WrongUsage(
            f"There is no completion for the shell {shell!r}.", hint="There is for bash, zsh and fish: name one."
        )
    click.echo(kind(app, {}, PROGRAM, COMPLETION).source())
    ctx.exit()


app = _LazyGroup(
    PROGRAM,
    no_args_is_help=True,
    help="Will this Linux kernel crash when a virtio device is unplugged, and what do I do about it?",
    epilog="Exit codes: 0 nothing to fear, 2 affected, 3 unknown, 64 wrong usage, 65 bad input, 69 something "
    "missing, 70 our fault. `ejectable COMMAND --help` shows examples.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version and exit.",
        ),
        click.Option(
            ["--show-completion"],
            is_flag=False,
            flag_value="",
            is_eager=True,
            expose_value=False,
            callback=_completion,
            metavar="[SHELL]",
            help="Print the completion script for bash, zsh or fish and exit.",
        ),
    ],
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code is the contract's."""
    debug = "--debug" in arguments
    report = partial(_report, command=_documented(arguments))
    try:
        if instruction := os.environ.get(COMPLETION):
            return EXIT_OK if shell_complete(app, {}, PROGRAM, COMPLETION, instruction) == 0 else EXIT_USAGE
        # Not app.main(): it writes a line of its own on Ctrl-C.
        with app.make_context(PROGRAM, list(arguments)) as context:
            result = app.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as left:  # --help and --version leave this way
        sys.stdout.flush()
        return left.exit_code
    except click.ClickException as error:
        return _wrong_usage(error, report)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED  # who pressed the keys knows why it ended
    except BrokenPipeError:
        return _reader_went_away()
    except EjectableError as error:
        if debug:
            traceback.print_exc()
        return report(error)
    except MemoryError:
        return report(_no_memory())
    except OSError as error:
        if error.errno == errno.EPIPE:
            return _reader_went_away()
        if debug:
            traceback.print_exc()
        return report(_refused(error))
    except Exception as error:  # noqa: BLE001  (the last wall: a traceback is no answer)
        if debug:
            traceback.print_exc()
        if isinstance(error, ImportError | SystemError) and _memory_is_scarce():  # a library that could not be loaded
            return report(_no_memory())
        return report(
            OurFault(
                f"This is a bug in ejectable: {type(error).__name__}: {error}",
                hint="Run the same command with --debug and report what it prints.",
            )
        )
    return result if isinstance(result, int) else EXIT_OK


def _no_memory() -> EjectableError:
    hint = "Give it more, or take the file, or a capture of this machine (ejectable collect), to another machine."
    return Missing("There is not enough memory.", hint=hint)


def _memory_is_scarce() -> bool:
    from ejectable.confine import memory_is_scarce

    return memory_is_scarce()


def _documented(arguments: Sequence[str]) -> str | None:
    """The command whose document is due even if it fails: `--format json` was asked for."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    asked = "--format=json" in arguments or ("--format", "json") in pairwise(arguments)
    return command if asked and command in COMMANDS else None


def _wrong_usage(error: click.ClickException, report: Callable[[EjectableError], int]) -> int:
    """Say what is wrong with the command line: the sentence, and the way to the help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"{error.format_message()}\n")  # the help: nothing in it is from outside
        return EXIT_USAGE
    context = getattr(error, "ctx", None)
    hint = f"Try `{context.command_path} --help`." if context else None
    return report(WrongUsage(error.format_message(), hint=hint))


def _refused(error: OSError) -> EjectableError:
    if isinstance(error, PermissionError) and error.filename is not None:
        name = os.fsdecode(error.filename)
        return Denied(f"{name}: this user may not read or write it.", hint="Run it as root, or as the owner.")
    return Missing(f"The system refused: {error}.", hint="Is there room, and a permission?")


def _reader_went_away() -> int:
    # As with `| head`: nothing to say, and nothing may be said when Python flushes at exit either.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())
    return 128 + signal.SIGPIPE


def _report(error: EjectableError, *, command: str | None) -> int:
    """Say what failed, on standard error; and in the document of `command`, where one was asked for."""
    complain(error.message, error.hint)
    if command is not None:
        from ejectable.report.document import DOCUMENTS, document_of, encode, failed

        if command in DOCUMENTS:
            with suppress(OSError, ValueError):
                Terminal(Common()).document(encode(failed(document_of(command), error)))
    return error.exit_code
