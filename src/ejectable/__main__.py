# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point. It imports next to nothing, so that `--version` and completion answer at once."""

import os
import sys

__all__ = ["main"]

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def main() -> None:
    """Run the command line and leave with its exit code."""
    _have_streams()
    try:
        if sys.argv[1:] == ["--version"]:
            from ejectable import __version__

            sys.stdout.write(f"ejectable {__version__}\n")
            return
        from ejectable.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while it is still importing
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _have_streams() -> None:
    """Open what was closed: else the next file that is opened becomes standard output, and children write to it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(number, True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115  (Python made it None; it lasts as we do)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


if __name__ == "__main__":
    main()
