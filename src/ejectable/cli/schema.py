# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable schema`: print the JSON Schema of a document."""

import sys

import click

from ejectable.cli.options import Common, command
from ejectable.report import document

__all__ = ["schema"]


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  (click's)
    return [name for name in document.schema_names() if name.startswith(incomplete)]


@command(
    examples=(
        "ejectable schema kernel > kernel.schema.json",
        "ejectable kernel --format json vmlinuz | check-jsonschema --schemafile kernel.schema.json -",
    ),
    without=("format", "advisory", "no_cache", "jobs", "max_unpacked", "exit_zero", "quiet", "no_color"),
)
@click.argument("name", metavar="NAME", shell_complete=_names, help="The command it is for.")
def schema(common: Common, *, name: str) -> int:  # noqa: ARG001  (every command has it)
    """Print the JSON Schema of a document: kernel, check, crash, lab, fix, explain."""
    sys.stdout.write(document.schema(name))
    return 0
