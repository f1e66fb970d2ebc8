# SPDX-License-Identifier: GPL-2.0-or-later
"""The metadata service of ECS: which instance this is. http://100.100.100.200/latest/, in both of its modes.

In hardened mode a request needs a token (PUT /latest/api/token with the wanted lifetime); in normal mode it does not.
Source: Alibaba Cloud, "Instance metadata". No proxy is used, no redirect is followed, and every answer is bounded in
time and size: what listens on that address elsewhere is anybody's guess, so it is asked only where the firmware says
Alibaba Cloud.
"""

import os
import re
import socket
import time
from collections.abc import Mapping, Sequence

from ejectable.errors import Missing, WrongUsage

__all__ = ["ADDRESS_VARIABLE", "MetadataService"]

ADDRESS = "100.100.100.200:80"
# For tests and for whoever has to go through a tunnel: host:port.
ADDRESS_VARIABLE = "EJECTABLE_ECS_METADATA"
MAX_ANSWER = 16384  # bytes, headers included: the values are names
TOKEN_LIFETIME_S = 60
TIMEOUT_S = 0.4  # of one answer: the service is on the same host and answers in milliseconds
VALUE = re.compile(r"[\x21-\x7e]{1,1024}")


class MetadataService:
    """`address` is host:port, by default the documented one or what $EJECTABLE_ECS_METADATA says."""

    def __init__(self, address: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        text = address or os.environ.get(ADDRESS_VARIABLE) or ADDRESS
        host, colon, port = text.rpartition(":")
        if (
            not colon
            or not port.isdecimal()
            or len(port) > 5
            or not 0 < int(port) < 65536
            or not re.fullmatch(r"[\w.\-\[\]:]+", host)
        ):
            raise WrongUsage(f"${ADDRESS_VARIABLE} is {text!r}: expected host:port.")
        self.address = text
        self._at = (host.strip("[]"), int(port))
        self._timeout_s = timeout_s

    def read(self, paths: Sequence[str]) -> dict[str, str]:
        """The values below /latest/meta-data/ that there are, by path. Raises `Missing` where nobody answers."""
        token = self._token()
        headers = {"X-aliyun-ecs-metadata-token": token} if token else {}
        found: dict[str, str] = {}
        for path in paths:
            status, body = self._request("GET", f"/latest/meta-data/{path}", headers)
            if status == 403 and not token:
                raise Missing("The metadata service wants a token and gives none.", hint="Ask with --instance instead.")
            if status == 200 and VALUE.fullmatch(body.strip()):
                found[path] = body.strip()
        return found

    def _token(self) -> str | None:
        """A token of the hardened mode; `None` where there is none to be had, which normal mode does not mind."""
        wanted = {"X-aliyun-ecs-metadata-token-ttl-seconds": str(TOKEN_LIFETIME_S)}
        try:
            status, body = self._request("PUT", "/latest/api/token", wanted)
        except Missing:
            # Behind a hop more than the instance allows (a container), only the token's answer is lost.
            return None
        return body.strip() if status == 200 and VALUE.fullmatch(body.strip()) else None

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status and body of one request on a connection of its own, read to its end within the time."""
        import http.client

        lines = [f"{method} {path} HTTP/1.0", f"Host: {self._at[0]}", "Content-Length: 0", "Connection: close"]
        request = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""])
        try:
            received = _Received(self._exchange(request.encode("ascii")))
            # http.client needs of a socket what `_Received` has.
            response = http.client.HTTPResponse(received, method=method)  # type: ignore[arg-type]
            response.begin()
            return response.status, response.read(MAX_ANSWER).decode("ascii", "replace")
        except (OSError, http.client.HTTPException, ValueError):
            raise Missing(f"The metadata service of ECS ({self.address}) gave no answer that makes sense.") from None

    def _exchange(self, request: bytes) -> bytes:
        end = time.monotonic() + self._timeout_s
        received = bytearray()
        with socket.create_connection(self._at, timeout=self._timeout_s) as connection:
            connection.sendall(request)
            while len(received) <= MAX_ANSWER:
                # The limit is for the whole answer: one byte now and then must not keep us.
                connection.settimeout(max(end - time.monotonic(), 0.001))
                part = connection.recv(4096)
                if not part:
                    return bytes(received)
                received += part
        raise ValueError(f"more than {MAX_ANSWER} bytes")


class _Received:
    """Bytes that were received, for http.client to parse."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> object:
        import io

        del mode
        return io.BytesIO(self._data)
