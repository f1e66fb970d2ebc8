# SPDX-License-Identifier: GPL-2.0-or-later
"""`ejectable schema`: print the JSON Schema of a document."""

import sys
from typing import Annotated

import typer

from ejectable.cli.options import command_app, examples
from ejectable.report import document

__all__ = ["app", "schema"]

app = command_app()


def _complete(incomplete: str) -> list[str]:
    return [name for name in document.schema_names() if name.startswith(incomplete)]


@app.command(
    epilog=examples(
        "ejectable schema kernel > kernel.schema.json",
        "ejectable kernel --format json vmlinuz | check-jsonschema --schemafile kernel.schema.json -",
    )
)
def schema(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The command it is for.", autocompletion=_complete)],
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,  # noqa: ARG001  (read by cli.app)
) -> int:
    """Print the JSON Schema of a document: kernel, check, crash, lab, fix, explain."""
    sys.stdout.write(document.schema(name))
    return 0
