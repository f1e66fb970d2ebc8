# SPDX-License-Identifier: GPL-2.0-or-later
"""The JSON document that every command prints: one envelope, key order as docs/json.md gives it.

A document is a struct, and its JSON Schema (`ejectable schema NAME`) is generated from that: the struct of a command is
`<Command>Document` in `ejectable.report.<command>`, and this module has what they share.
"""

import datetime as dt
import importlib
import json
import os
import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from ejectable import __version__
from ejectable.errors import EjectableError, WrongUsage
from ejectable.model import Status
from ejectable.report.text import UNPRINTABLE, clean

__all__ = [
    "DOCUMENTS",
    "VERSION",
    "Document",
    "InputError",
    "Tool",
    "document_of",
    "encode",
    "failed",
    "join",
    "schema",
    "tag",
]

T = TypeVar("T", bound=msgspec.Struct)
D = TypeVar("D", bound="Document")

# The number at the end of "ejectable/kernel/1". It rises when a key changes its meaning or goes away; never when
# one is added.
VERSION = 1

# The commands that print a document.
DOCUMENTS = ("check", "crash", "explain", "fix", "kernel", "lab")


def _now() -> str:
    """RFC 3339, in UTC. SOURCE_DATE_EPOCH fixes it (https://reproducible-builds.org/specs/source-date-epoch/)."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    # Eleven digits reach beyond the year 5000; more would not be a time.
    seconds = int(fixed) if re.fullmatch(r"\d{1,11}", fixed) else None
    if seconds is None:
        moment = dt.datetime.now(dt.UTC)
    else:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def tag(command: str) -> str:
    """The value of `schema` in the documents of this command: "ejectable/kernel/1"."""
    return f"ejectable/{command}/{VERSION}"


class Tool(msgspec.Struct, frozen=True):
    """Who made the document."""

    name: str = "ejectable"
    version: str = __version__


class InputError(msgspec.Struct, frozen=True):
    """Something that was asked for and could not be done or read."""

    path: str | None
    error: str
    hint: Annotated[str | None, Meta(description="What helps.")]
    exit_code: Annotated[int, Meta(description="What the command would return if there were nothing else: 64 to 70.")]


class Document(msgspec.Struct, frozen=True, kw_only=True, tag_field="schema"):
    """The envelope; each key that a subclass adds has a value for when nothing could be said."""

    tool: Tool = Tool()
    generated: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] = msgspec.field(default_factory=_now)
    status: Annotated[Status, Meta(description="What it all adds up to.")]
    summary: Annotated[str, Meta(description="One line for a person.", min_length=1, pattern="^[^\\n]*$")]
    next_steps: tuple[str, ...] = ()
    errors: Annotated[tuple[InputError, ...], Meta(description="What could not be done or read.")] = ()


def join(kind: type[T], *parts: msgspec.Struct, **more: Any) -> T:
    """A `kind` with the fields of all `parts` that it has, the later ones first, and with `more`."""
    values: dict[str, Any] = {}
    for part in parts:
        values |= {name: getattr(part, name) for name in part.__struct_fields__ if name in kind.__struct_fields__}
    return kind(**(values | more))


def failed(kind: type[D], error: EjectableError) -> D:
    """The document of a command that ended with this error: `unknown`, with nothing else in it."""
    line = clean(error.message).replace("\n", " ") or "It failed."
    return kind(
        status=Status.UNKNOWN,
        summary=line,
        next_steps=(error.hint,) if error.hint else (),
        errors=(InputError(getattr(error, "path", None), error.message, error.hint, error.exit_code),),
    )


def encode(document: Any, *, indent: int = 2) -> bytes:
    """The document as UTF-8 JSON, with a newline at its end; on one line with `indent` 0.

    Text that came from a file name or a log may hold lone surrogates, which no UTF-8 can carry: they become
    question marks.
    """
    plain = msgspec.to_builtins(document, enc_hook=str)
    try:
        data = msgspec.json.encode(plain)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_printable(plain))
    return _escaped(msgspec.json.format(data, indent=indent)) + b"\n"


def schema(name: str) -> str:
    """The JSON Schema (draft 2020-12) of the document of this command; raises `WrongUsage`."""
    name = re.sub(r"^ejectable/([a-z]+)/\d+$", r"\1", name)
    if name not in DOCUMENTS:
        raise WrongUsage(f"There is no schema named {name!r}.", hint=f"There are: {', '.join(DOCUMENTS)}.")
    kind = document_of(name)
    (top,), parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    parts = {part: _strict(body) for part, body in parts.items()}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:ejectable:{name}:{VERSION}",
        **parts.pop(top["$ref"].rpartition("/")[2]),
        "$defs": parts,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def document_of(command: str) -> type[Document]:
    """The type of the document that this command prints."""
    found: type[Document] = getattr(
        importlib.import_module(f"ejectable.report.{command}"), f"{command.title()}Document"
    )
    return found


def _strict(body: dict[str, Any]) -> dict[str, Any]:
    """A struct's schema as its documents are: every key is there, always, and no other one."""
    if "properties" not in body:
        return body
    keys = {
        name: {word: value for word, value in one.items() if word != "default"}
        for name, one in body["properties"].items()
    }
    return {**body, "properties": keys, "required": list(keys), "additionalProperties": False}


def _escaped(data: bytes) -> bytes:
    """The same document with JSON's escapes for what a terminal may obey: such characters stand in strings only."""
    if data.isascii() and b"\x7f" not in data:
        return data
    return UNPRINTABLE.sub(
        lambda found: "\n" if found[0] == "\n" else json.dumps(found[0])[1:-1], data.decode()
    ).encode()


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value
