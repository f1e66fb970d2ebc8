# SPDX-License-Identifier: GPL-2.0-or-later
"""The official SDK, in a process of its own: `python -m ejectable.remedies.ecs.sdk REGION`, started by `service`.

The credentials come from the SDK's own chain and never leave this process: neither they nor the SDK's exceptions (which
hold the signed request), its log handlers (which print headers where DEBUG=sdk is set) and its threads can reach the
process that reports. One line of JSON asks, one line answers:

    {"action": "DescribeInstances", "parameters": {...}}
    {"body": {...}}  or  {"refused": {"code", "message", "status"}}  or  {"failed": KIND}
"""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["ACTIONS", "ENDPOINT", "ENDPOINT_VARIABLE", "main"]

# Nothing else can be asked for through this process.
ACTIONS = frozenset({
    "DescribeInstances", "DescribeInstanceTypes", "DescribeResourcesModification", "ModifyInstanceSpec",
    "ModifyPrepayInstanceSpec", "StartInstance", "StopInstance", "RunCommand", "DescribeInvocationResults",
})  # fmt: skip
# What the SDK reads by itself must be known before it is imported.
ENDPOINT_VARIABLE = "EJECTABLE_ECS_ENDPOINT"
MAX_BODY = 8 << 20  # bytes of one answer, unpacked
CONNECT_MS = 3000
READ_MS = 10000
ANSWER_S = 20.0
TOO_LARGE = "ejectable: too large an answer"
REDIRECTED = "ejectable: a redirect"
# Only where this machine itself may the connection be in the clear: the signature is safe, the answer is not.
ENDPOINT = re.compile(
    r"(?:(https)://)?([a-z0-9.-]{1,253}(?::\d{1,5})?)|(http)://((?:127\.0\.0\.1|localhost)(?::\d{1,5})?)"
)


def main(argv: list[str]) -> int:
    """Answer until standard input ends."""
    # The libraries print; standard output is for answers only.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    os.environ.pop("DEBUG", None)
    logging.disable(logging.CRITICAL)
    ask = _prepared(argv[0])
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = json.dumps(ask(question["action"], question["parameters"]))
        except (RecursionError, ValueError, TypeError):
            answer = json.dumps({"failed": "no-sense"})
        answers.write(answer + "\n")
        answers.flush()
    return 0


def _prepared(region: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """A function that asks; where the SDK or the credentials lack, one that says so."""
    try:
        client, models, runtime = _client(region)
    except ImportError:
        return lambda _action, _parameters: {"failed": "no-sdk"}
    except Exception:  # noqa: BLE001  (the SDK raises anything for a file of credentials that it cannot read)
        return lambda _action, _parameters: {"failed": "no-credentials"}

    def ask(action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if action not in ACTIONS:
            return {"failed": "unknown-action"}
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", action).lower()
        try:
            request = getattr(models, f"{action}Request")().from_map(parameters)
            response = getattr(client, f"{name}_with_options")(request, runtime)
            return {"body": response.body.to_map()}
        except Exception as error:  # noqa: BLE001  (the SDK's own are no family; all of them end here)
            return _told(error)

    return ask


def _client(region: str) -> tuple[Any, Any, Any]:
    from alibabacloud_credentials.client import Client as Credentials
    from alibabacloud_ecs20140526 import models
    from alibabacloud_ecs20140526.client import Client
    from alibabacloud_tea_openapi.utils_models import Config
    from darabonba.runtime import RuntimeOptions

    _bound_answers()
    config = Config(credential=Credentials(), region_id=region, connect_timeout=CONNECT_MS, read_timeout=READ_MS)
    if wanted := os.environ.get(ENDPOINT_VARIABLE):
        match = ENDPOINT.fullmatch(wanted)
        assert match is not None, "the asking process has checked it"
        config.endpoint = match[2] or match[4]
        config.protocol = "HTTP" if match[3] else "HTTPS"
    return Client(config), models, RuntimeOptions(autoretry=False)


def _bound_answers() -> None:
    """Give the SDK connections that end: it reads whatever is sent, for as long as bytes trickle in."""
    from darabonba.core import DaraCore
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):
        """Reads an answer within its limits, and follows no redirect: the headers hold the session's token."""

        def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
            end = time.monotonic() + ANSWER_S
            response = super().send(request, *args, **options | {"stream": True})
            if response.is_redirect:
                raise OSError(REDIRECTED)
            body = bytearray()
            for part in response.iter_content(65536):
                body += part
                if len(body) > MAX_BODY:
                    raise OSError(TOO_LARGE)
                if time.monotonic() > end:
                    raise TimeoutError("timed out")
            response._content = bytes(body)  # noqa: SLF001  (what `content` answers once the stream is read)
            return response

    def get_adapter(prefix: str, tls_min_version: str | None = None, pool_size: int | None = None) -> HTTPAdapter:
        del prefix, tls_min_version, pool_size
        return Bounded()

    DaraCore.get_adapter = staticmethod(get_adapter)


def _told(error: Exception) -> dict[str, Any]:
    """What went wrong, in words that hold nothing of the request."""
    inner = getattr(error, "inner_exception", None) or error
    code = getattr(inner, "code", None)
    if isinstance(code, str) and type(inner).__name__ != "CredentialException":
        status = getattr(inner, "status_code", None)
        data = getattr(inner, "data", None)
        message = data.get("Message") if isinstance(data, dict) else None
        return {"refused": {"code": code, "message": str(message or "")[:500], "status": status}}
    name, text = type(inner).__name__, str(inner)
    kinds = (
        (name == "CredentialException", "no-credentials"),
        (TOO_LARGE in text, "too-large"),
        (REDIRECTED in text, "redirected"),
        ("timed out" in text or "Timeout" in text, "timed-out"),
        ("resolve" in text or "Name or service" in text, "no-name"),
        ("certificate" in text.lower() or "SSL" in text, "tls"),
        (name == "RetryError", "no-connection"),
    )
    return {"failed": next((kind for holds, kind in kinds if holds), "no-sense")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
