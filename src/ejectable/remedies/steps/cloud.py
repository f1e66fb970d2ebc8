# SPDX-License-Identifier: GPL-2.0-or-later
"""Steps that change an instance of Alibaba Cloud ECS through its API."""

import re
from typing import TYPE_CHECKING

from ejectable.errors import EjectableError, Missing
from ejectable.remedies.steps.base import System

if TYPE_CHECKING:
    from ejectable import host

__all__ = ["ChangeInstanceType", "StartInstance", "StopInstance"]

REGION = re.compile(r"[a-z]{2}-[a-z0-9-]{1,40}", re.ASCII)
INSTANCE = re.compile(r"i-[a-zA-Z0-9_-]{1,80}", re.ASCII)
TYPE = re.compile(r"ecs\.[a-z0-9.-]{1,60}", re.ASCII)


class _OfInstance(System, frozen=True):
    region: str
    instance: str

    def __post_init__(self) -> None:
        if not REGION.fullmatch(self.region) or not INSTANCE.fullmatch(self.instance):
            raise ValueError("this is no region, or no instance")


class StopInstance(_OfInstance, frozen=True, tag="stop-instance"):
    """An instance that was stopped; it is started again when that is undone."""

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"stopped {self.instance}"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        from ejectable.remedies.ecs.aliyun_cli import start
        from ejectable.remedies.ecs.restore import running

        del root
        try:
            running(self.region, self.instance)
        except EjectableError as error:
            left = f"It may be left stopped: {start(self.region, self.instance)[0]}"
            raise Missing(" ".join(filter(None, (error.message, error.hint, left)))) from error
        return True


class ChangeInstanceType(_OfInstance, frozen=True, tag="change-type"):
    """An instance whose type was changed. `started_later`: the start that followed takes both back, in its order."""

    before: str
    after: str
    started_later: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not TYPE.fullmatch(self.before) or not TYPE.fullmatch(self.after):
            raise ValueError("this is no type of an instance")

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"changed {self.instance} from {self.before} to {self.after}"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        from ejectable.remedies.ecs.restore import typed

        del root
        if not self.started_later:
            typed(self.region, self.instance, self.before)
        return not self.started_later


class StartInstance(_OfInstance, frozen=True, tag="start-instance"):
    """An instance that was started after its type was changed; it is stopped when that is undone.

    With `type_before` the type is changed back instead: of a subscription that is an order, which is refused, and
    then the instance is not stopped for nothing.
    """

    type_before: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.type_before and not TYPE.fullmatch(self.type_before):
            raise ValueError("this is no type of an instance")

    @property
    def what(self) -> str:
        """As `Step.what`."""
        return f"started {self.instance}"

    def revert(self, root: "host.Root") -> bool:
        """As `System.revert`."""
        from ejectable.remedies.ecs import restore

        del root
        if self.type_before:
            restore.typed(self.region, self.instance, self.type_before)
        else:
            restore.stopped(self.region, self.instance)
        return True
