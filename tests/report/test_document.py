# SPDX-License-Identifier: GPL-2.0-or-later
"""Every document has the envelope of the contract, in a stable order, as UTF-8 JSON."""

import json

import jsonschema
import pytest

from ejectable.errors import WrongUsage
from ejectable.model import Status
from ejectable.report import document


def test_the_envelope_comes_first_and_in_order() -> None:
    built = document.build("kernel", status=Status.FIXED, summary="s", next_steps=("a",), body={"kernels": []})
    assert list(json.loads(document.encode(built))) == [
        "schema",
        "tool",
        "generated",
        "status",
        "summary",
        "next_steps",
        "kernels",
    ]
    assert built["schema"] == "ejectable/kernel/1"


def test_the_time_is_rfc_3339_and_can_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1720000000")
    built = document.build("kernel", status=Status.FIXED, summary="s", next_steps=(), body={})
    assert built["generated"] == "2024-07-03T09:46:40Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "not a number")
    built = document.build("kernel", status=Status.FIXED, summary="s", next_steps=(), body={})
    assert built["generated"].endswith("Z")
    assert not built["generated"].startswith("2024-07-03T09:46:40")


def test_bytes_that_are_no_text_do_not_break_a_document() -> None:
    name = b"/boot/vmlinuz-\xff\xfe".decode("utf-8", "surrogateescape")
    data = document.encode({"path": name, "nested": [{"path": name}]})
    assert json.loads(data)["nested"][0]["path"].startswith("/boot/vmlinuz-")


@pytest.mark.parametrize("name", document.schema_names())
def test_a_shipped_schema_is_valid_and_strict(name: str) -> None:
    schema = json.loads(document.schema(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert {"schema", "tool", "generated", "status", "summary", "next_steps"} <= set(schema["required"])
    assert document.schema(f"ejectable/{name}/1") == document.schema(name)


def test_a_schema_that_does_not_exist_is_wrong_usage() -> None:
    for name in ("nothing", "../document", "", "kernel.json"):
        with pytest.raises(WrongUsage):
            document.schema(name)
