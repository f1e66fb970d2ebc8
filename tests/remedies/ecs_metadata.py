# SPDX-License-Identifier: GPL-2.0-or-later
"""A metadata service that answers as that of ECS does, in its two modes; and some that only pretend to be one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

from tests.remedies.ecs_server import INSTANCE, REGION, serving

__all__ = ["Metadata", "telling"]


class Metadata:
    """A metadata service. `hardened`: it answers with a token only; `broken`: how it goes wrong."""

    def __init__(self, *, hardened: bool = False, tokens: bool = True, broken: str = "") -> None:
        self.values = {
            "instance-id": INSTANCE,
            "region-id": REGION,
            "instance/instance-type": "ecs.g7.large",
            "network/interfaces/macs/00:16:3e:01:02:03/network-interface-id": "eni-bp1ejectable00000000",
        }
        self.hardened = hardened
        self.tokens = tokens
        self.broken = broken
        self.asked: list[tuple[str, str]] = []


class _MetadataHandler(BaseHTTPRequestHandler):
    service: Metadata

    def log_message(self, *arguments: object) -> None:
        """Nothing: what pytest shows is the tests' own."""

    def do_PUT(self) -> None:
        self.service.asked.append(("PUT", self.path))
        lifetime = self.headers.get("X-aliyun-ecs-metadata-token-ttl-seconds", "")
        good = self.path == "/latest/api/token" and lifetime.isdecimal() and 1 <= int(lifetime) <= 21600
        self._say(*((200, b"dG9rZW4tb2YtdGhlLXRlc3Rz") if good and self.service.tokens else (404, b"")))

    def do_GET(self) -> None:
        self.service.asked.append(("GET", self.path))
        given = self.headers.get("X-aliyun-ecs-metadata-token")
        if self.service.broken == "slow":
            with suppress(OSError):
                for _ in range(200):
                    self.wfile.write(b"H")
                    time.sleep(0.05)
            return
        if self.service.broken == "huge":
            with suppress(OSError):
                self._say(200, b"i" * (1 << 22))
            return
        if self.service.broken == "html":
            self._say(200, b"<html>Please log in to the hotel's network</html>")
            return
        if self.service.broken == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            return
        if self.service.hardened and given != "dG9rZW4tb2YtdGhlLXRlc3Rz":
            self._say(403, b"")
            return
        value = self.service.values.get(self.path.removeprefix("/latest/meta-data/"))
        self._say(*((404, b"") if value is None else (200, value.encode())))

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def telling(service: Metadata) -> Iterator[str]:
    """The metadata service, as $EJECTABLE_ECS_METADATA wants it."""
    with serving(type("Handler", (_MetadataHandler,), {"service": service})) as port:
        yield f"127.0.0.1:{port}"
