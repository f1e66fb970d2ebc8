# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's control channel: commands with a limit, events that are waited for, a transcript of all that was said.

The protocol is spoken by qemu.qmp; commands and events are those of QEMU's QAPI reference.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from ejectable.errors import Missing

__all__ = ["Qmp", "QmpRefused"]

TRANSCRIPT_LIMIT = 4 << 20  # bytes
MOST_EVENTS = 4096  # a run has some dozens; more is a QEMU that floods, and what is waited for then does not come
CLOSE_S = 1.0


class QmpRefused(Exception):
    """QEMU refused a command; the text is its own."""


class Qmp:
    """A connected control channel. `started` is the moment (time.monotonic) that transcripts count from."""

    def __init__(self, *, started: float) -> None:
        try:
            from qemu.qmp import QMPClient
        except ImportError as error:
            raise Missing(
                "The Python package qemu.qmp is not installed.",
                hint="Install `ejectable[lab]`: pip install 'ejectable[lab]'.",
            ) from error
        self.transcript: list[str] = []
        self.events: list[dict[str, Any]] = []
        self._size = 0
        self._started = started
        self._changed = asyncio.Event()
        note = self.note

        class Client(QMPClient):  # type: ignore[misc,unused-ignore]
            """Writes down what passes by."""

            def _cb_outbound(self, msg: Any) -> Any:
                note("->", msg)
                return msg

            def _cb_inbound(self, msg: Any) -> Any:
                note("<-", msg)
                return msg

        self._client = Client("lab")

    async def connect(self, connection: socket.socket, *, limit_s: float) -> None:
        """Greet and negotiate; raises `TimeoutError`, `ConnectionError`."""
        await self._guarded(self._client.connect(connection), limit_s)

    async def execute(self, command: str, arguments: dict[str, Any] | None = None, *, limit_s: float = 10.0) -> Any:
        """Run a command; raises `QmpRefused` where QEMU says no, `ConnectionError` where it is gone."""
        return await self._guarded(self._client.execute(command, arguments or {}), limit_s)

    async def event(self, *names: str, when: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The first event of these names that `when` accepts, also among those that already came."""
        seen = 0
        while True:
            self._changed.clear()
            for event in self.events[seen:]:
                if event["event"] in names and when(event.get("data") or {}):
                    return event
            seen = len(self.events)
            await self._changed.wait()

    async def close(self) -> None:
        """Hang up; what the other side makes of it is of no interest."""
        hanging_up = asyncio.ensure_future(self._client.disconnect())
        await asyncio.wait({hanging_up}, timeout=CLOSE_S)
        if not hanging_up.cancel():  # done
            with contextlib.suppress(Exception):
                hanging_up.result()

    async def _guarded(self, work: Any, limit_s: float) -> Any:
        from qemu.qmp import ExecuteError, QMPError

        try:
            async with asyncio.timeout(limit_s):
                return await work
        except ExecuteError as error:
            raise QmpRefused(str(error)) from error
        except TimeoutError:
            raise
        except (QMPError, OSError, EOFError) as error:
            raise ConnectionError(f"QMP: {error}") from error
        except Exception as error:  # the library trips over what no QEMU says: this one is no longer ours
            raise ConnectionError(f"QMP: what came makes no sense ({type(error).__name__})") from error

    def note(self, direction: str, message: Any) -> None:
        """Write down what passed by, and keep it if it is an event."""
        content = json.loads(bytes(message)) if isinstance(message, bytes) else dict(message)
        line = f"{time.monotonic() - self._started:9.3f} {direction} {json.dumps(content)}"
        if self._size < TRANSCRIPT_LIMIT:
            self._size += len(line)
            self.transcript.append(line)
        if direction == "<-" and _is_event(content) and len(self.events) < MOST_EVENTS:
            self.events.append(content)
            self._changed.set()


def _is_event(content: Any) -> bool:
    """Whether it is an event as QEMU sends them: a name, and an object if anything (qapi-event specification)."""
    named = isinstance(content, dict) and isinstance(content.get("event"), str)
    return named and isinstance(content.get("data", {}), dict)
