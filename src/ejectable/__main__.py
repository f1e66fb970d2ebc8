# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point. It imports next to nothing, so that `--version` and completion answer at once."""

import sys

__all__ = ["main"]

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def main() -> None:
    """Run the command line and leave with its exit code."""
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


if __name__ == "__main__":
    main()
