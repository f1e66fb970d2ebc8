# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point. It imports next to nothing, so that `--version` and completion answer at once."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with its exit code."""
    if sys.argv[1:] == ["--version"]:
        from ejectable import __version__

        sys.stdout.write(f"ejectable {__version__}\n")
        return
    from ejectable.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
