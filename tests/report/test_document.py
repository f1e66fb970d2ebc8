# SPDX-License-Identifier: GPL-2.0-or-later
"""Every document has the envelope of the contract, in a stable order, as UTF-8 JSON."""

import json
from urllib.parse import urlsplit

import jsonschema
import pytest

from ejectable.errors import WrongUsage
from ejectable.model import Status
from ejectable.report import document
from ejectable.report.document import Document
from ejectable.report.kernel import KernelDocument


def _empty() -> Document:
    return KernelDocument(status=Status.UNKNOWN, summary="s", next_steps=("a",))


def test_the_envelope_comes_first_and_in_order() -> None:
    answer = json.loads(document.encode(_empty()))
    envelope = ["schema", "tool", "generated", "status", "summary", "next_steps", "errors"]
    assert list(answer) == [*envelope, "kernels", "unreadable"]
    assert answer["schema"] == "ejectable/kernel/1"


def test_the_time_is_rfc_3339_and_can_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1720000000")
    assert _empty().generated == "2024-07-03T09:46:40Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "not a number")
    now = _empty().generated
    assert now.endswith("Z")
    assert not now.startswith("2024-07-03T09:46:40")


def test_bytes_that_are_no_text_do_not_break_a_document() -> None:
    name = b"/boot/vmlinuz-\xff\xfe".decode("utf-8", "surrogateescape")
    data = document.encode({"path": name, "nested": [{"path": name}]})
    assert json.loads(data)["nested"][0]["path"].startswith("/boot/vmlinuz-")


@pytest.mark.parametrize("name", document.DOCUMENTS)
def test_a_schema_is_valid_and_strict_and_its_id_is_a_uri(name: str) -> None:
    schema = json.loads(document.schema(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert urlsplit(schema["$id"]).scheme == "urn"
    for body in (schema, *schema["$defs"].values()):
        if body.get("type") == "object":
            assert body["additionalProperties"] is False
            assert body["required"] == list(body["properties"])
    assert document.schema(f"ejectable/{name}/1") == document.schema(name)


@pytest.mark.parametrize("name", document.DOCUMENTS)
def test_an_error_is_a_document_of_the_schema_that_promises_nothing(name: str) -> None:
    answer = json.loads(
        document.encode(
            document.failed(document.document_of(name), WrongUsage("No\nsuch\x1b thing.", hint="Look again."))
        )
    )
    jsonschema.validate(answer, json.loads(document.schema(name)), format_checker=jsonschema.FormatChecker())
    assert (answer["status"], answer["next_steps"]) == ("unknown", ["Look again."])
    assert [(one["path"], one["exit_code"]) for one in answer["errors"]] == [(None, 64)]


def test_a_schema_that_does_not_exist_is_wrong_usage() -> None:
    for name in ("nothing", "../document", "", "kernel.json"):
        with pytest.raises(WrongUsage):
            document.schema(name)
