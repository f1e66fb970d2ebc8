# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable schema`: print the JSON Schema of a document."""

import click

from ejectable.cli.options import Common, command
from ejectable.cli.terminal import Terminal
from ejectable.report import document

__all__ = ["schema"]


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001  (click's)
    return [name for name in document.DOCUMENTS if name.startswith(incomplete)]


@command(
    examples=(
        "ejectable schema kernel > kernel.schema.json",
        "ejectable kernel --format json vmlinuz | check-jsonschema --schemafile kernel.schema.json -",
    ),
    without=("format", "advisory", "no_cache", "jobs", "max_unpacked", "exit_zero", "quiet", "no_color"),
)
@click.argument("name", metavar="NAME", shell_complete=_names, help="The command it is for.")
def schema(common: Common, *, name: str) -> int:
    """Print the JSON Schema of a document: kernel, check, crash, lab, fix, explain."""
    Terminal(common).document(document.schema(name).encode())
    return 0
