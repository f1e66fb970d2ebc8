# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking the API of ECS: a question, an answer of a known shape, or an error in one sentence.

The SDK runs in a process of its own (see `sdk`); here are the time limits, the patience with throttling, and the check
of what was answered.
"""

import contextlib
import json
import os
import random
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from ejectable.errors import WrongUsage
from ejectable.remedies import commands
from ejectable.remedies.ecs.instance import on_ecs
from ejectable.remedies.ecs.own_files import check_files, home_is_ours
from ejectable.remedies.ecs.refusals import Refusal, as_error, failure
from ejectable.remedies.ecs.sdk import ENDPOINT, ENDPOINT_VARIABLE

__all__ = ["Ecs", "credentials_likely", "installed"]

ANSWER_S = 30.0  # of one question; the SDK's own limits are below
MAX_LINE = 32 << 20  # bytes: the body, escaped
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 16.0
REGION = re.compile(r"[a-z]{2,4}(-[a-z0-9]{1,24}){1,6}")
Body = TypeVar("Body", bound=msgspec.Struct)


def installed() -> bool:
    """Whether the SDK is there; found without importing it."""
    from importlib.util import find_spec

    return find_spec("alibabacloud_ecs20140526") is not None and find_spec("alibabacloud_credentials") is not None


def credentials_likely(*, role: bool) -> bool:
    """Whether the SDK's chain would find something to try: its variables, its files, or the instance's `role`.

    Source: alibabacloud_credentials, provider/default.py. Only whether they are there is looked at.
    """
    variables = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_CREDENTIALS_URI", "ALIBABA_CLOUD_OIDC_TOKEN_FILE")
    if any(os.environ.get(name) for name in (*variables, "ALIBABA_CLOUD_CREDENTIALS_FILE")):
        return True
    home = Path(os.environ.get("HOME") or "/nonexistent")
    if any((home / name).is_file() for name in (".aliyun/config.json", ".alibabacloud/credentials.ini")):
        return True
    return role and os.environ.get("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "").lower() != "true"


class Ecs:
    """The API of one region; a context, which ends the SDK's process.

    `patience_s` is for how long throttling and passing faults are waited out. Raises `WrongUsage` for a region whose
    name cannot be one.
    """

    def __init__(
        self,
        region: str,
        *,
        patience_s: float,
        tell: Callable[[str], None] = lambda _: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not REGION.fullmatch(region):
            raise WrongUsage(f"{region!r} is no region of Alibaba Cloud.", hint="It looks like `cn-hangzhou`.")
        wanted = os.environ.get(ENDPOINT_VARIABLE)
        if wanted and not ENDPOINT.fullmatch(wanted):
            raise WrongUsage(
                f"${ENDPOINT_VARIABLE} is {wanted!r}: expected a host name.",
                hint=f"Inside a VPC it is `ecs-vpc.{region}.aliyuncs.com`.",
            )
        self.region = region
        self._patience_s = patience_s
        self._tell = tell
        self.pause = pause
        # What the SDK asks for, and no more: with DEBUG it would print its headers, and the token among them.
        own = {name: os.environ[name] for name in os.environ if name.startswith(("ALIBABA_CLOUD_", "EJECTABLE_ECS_"))}
        check_files(own)
        home = os.environ.get("HOME", "")
        if home_is_ours(home):
            own["HOME"] = home
        environment = commands.environment(more=own)
        if not on_ecs():
            # Elsewhere, whoever answers on the metadata address is a stranger.
            environment.setdefault("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _begin(self) -> None:
        # -P: the folder that we were called in must not lend us modules.
        command = [sys.executable, "-P", "-m", "ejectable.remedies.ecs.sdk", self.region]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for us: what is half done is then undone through another one
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def ask(self, action: str, shape: type[Body], **parameters: Any) -> Body:
        """The answer to a question. Raises `Missing` or `WrongUsage` with the way out where it is refused."""
        answer = self.try_to(action, shape, **parameters)
        if isinstance(answer, Refusal):
            raise as_error(answer)
        return answer

    def try_to(self, action: str, shape: type[Body], **parameters: Any) -> Body | Refusal:
        """The same, with a refusal as a value; still raises `Missing` where there is no answer at all.

        Parameters are named as the API names them; with a ClientToken, asking again does nothing twice.
        """
        # The API documents `true`; the SDK would send `True`, and a dry run must not depend on how that is read.
        sent = {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
        end = time.monotonic() + self._patience_s
        wait = FIRST_PAUSE_S
        safe_again = action.startswith("Describe") or "ClientToken" in parameters or "DryRun" in parameters
        while True:
            answer = self._exchange({"action": action, "parameters": sent})
            passing, refusal = _judged(answer, action, safe_again=safe_again)
            if not passing or time.monotonic() + wait > end:
                break
            self._tell("waiting: the API of ECS is busy")
            # Several machines that were throttled together must not come back together.
            self.pause(wait * (0.75 + random.random() / 2))  # noqa: S311
            wait = min(wait * 2, LONGEST_PAUSE_S)
        if refusal is not None:
            return refusal
        if "failed" in answer:
            raise failure(str(answer["failed"]), self.region)
        try:
            return msgspec.convert(answer.get("body"), shape, strict=False)
        except msgspec.ValidationError:
            raise failure("no-sense", self.region) from None

    def _exchange(self, question: Mapping[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            line = _line(process.stdout.fileno(), time.monotonic() + ANSWER_S)
        except BrokenPipeError:
            line = b""
        except TimeoutError:
            # Whatever it may still say belongs to a question that nobody asks any more.
            self._end()
            self._begin()
            return {"failed": "timed-out"}
        answer: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(line)
        if not isinstance(answer, dict):
            raise failure("no-sdk-answer", self.region)
        return answer


def _judged(answer: Mapping[str, Any], action: str, *, safe_again: bool) -> tuple[bool, Refusal | None]:
    """Whether it may pass if one waits, and the refusal where it is one."""
    told = answer.get("refused")
    if isinstance(told, dict):
        status = told.get("status")
        refusal = Refusal(
            action, str(told.get("code")), str(told.get("message")), status if isinstance(status, int) else None
        )
        return refusal.passing and (safe_again or refusal.untouched), refusal
    return answer.get("failed") in ("timed-out", "no-connection") and safe_again, None


def _line(descriptor: int, end: float) -> bytes:
    """One line from a pipe; raises `TimeoutError` after `end`, and gives what there is where the pipe ends."""
    received = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not received.endswith(b"\n") and len(received) <= MAX_LINE:
            if not selector.select(max(end - time.monotonic(), 0)):
                raise TimeoutError
            part = os.read(descriptor, 1 << 16)
            if not part:
                break
            received += part
    return bytes(received)
