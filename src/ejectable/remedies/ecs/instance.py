# SPDX-License-Identifier: GPL-2.0-or-later
"""Which ECS instance this machine is, if it is one, and which one is meant."""

import json
import re
from collections.abc import Callable

import msgspec

from ejectable import host
from ejectable.errors import Missing, WrongUsage
from ejectable.host.identity import read_host
from ejectable.remedies.ecs import aliyun_cli
from ejectable.remedies.ecs.metadata import MetadataService
from ejectable.remedies.remediation import Request

__all__ = ["CLOUD", "Identity", "Subject", "checked_instance", "find", "is_here", "on_ecs", "subject_of"]

CLOUD = "alibaba"  # host.identity's word
INSTANCE = re.compile(r"i-[a-z0-9]{5,40}")
PATHS = ("instance-id", "region-id", "instance/instance-type", "ram/security-credentials/")
CLOUD_INIT = "/run/cloud-init/instance-data.json"
ROLE = re.compile(r"[\w.-]{1,64}")


class Identity(msgspec.Struct, frozen=True):
    """What is known of an instance without the API. `unasked` says why the metadata service told nothing."""

    instance: str | None
    region: str | None
    type: str | None
    role: bool = False  # the instance has a RAM role, which gives it credentials
    unasked: str | None = None


class Subject(msgspec.Struct, frozen=True):
    """What a remedy is for: this machine, or another instance that was named. `notes` says what could not be asked."""

    instance: str | None
    region: str | None
    type: str | None
    other: bool  # than the machine that is looked at
    role: bool = False
    notes: tuple[str, ...] = ()

    @property
    def called(self) -> tuple[str, str]:
        """Region and instance as commands name them, with words that stand for what is not known."""
        return self.region or aliyun_cli.ANY_REGION, self.instance or aliyun_cli.ANY_INSTANCE


def subject_of(root: host.Root, cloud: str | None, request: Request, *, offline: bool) -> Subject:
    """What is meant by --instance and --region, or by their absence. Raises `WrongUsage` for what cannot be an id."""
    named = None if request.instance is None else checked_instance(request.instance)
    here = Identity(None, None, None)
    if cloud == CLOUD:
        here = find(root, offline=offline)
    notes = (here.unasked,) if here.unasked else ()
    if named is not None and named != here.instance:
        # The region is often the same; the API says so if it is not.
        return Subject(named, request.region or here.region, None, other=True, role=here.role, notes=notes)
    return Subject(here.instance, request.region or here.region, here.type, other=False, role=here.role, notes=notes)


def checked_instance(text: str) -> str:
    """An instance's id as it was typed; raises `WrongUsage` for what cannot be one."""
    if not INSTANCE.fullmatch(text):
        raise WrongUsage(f"{text!r} is no id of an ECS instance.", hint="It looks like `i-bp67acfmxazb4p0abcde`.")
    return text


def find(root: host.Root, *, offline: bool, service: Callable[[], MetadataService] = MetadataService) -> Identity:
    """The machine below `root`, which is an ECS instance: from the metadata service, else from what cloud-init left."""
    told: dict[str, str] = {}
    unasked: str | None = None
    if offline:
        unasked = "The metadata service was not asked: --offline."
    elif not root.live:
        unasked = "The metadata service was not asked: this is a tree, not the machine itself."
    else:
        try:
            told = service().read(PATHS)
        except Missing as error:
            unasked = error.message
    left = _cloud_init(root)
    return Identity(
        instance=_fitting(INSTANCE, told.get("instance-id") or left.get("instance_id")),
        region=_fitting(re.compile(r"[a-z0-9-]{4,64}"), told.get("region-id") or left.get("region")),
        type=_fitting(
            re.compile(r"ecs\.[a-z0-9.-]{3,64}"), told.get("instance/instance-type") or left.get("instance_type")
        ),
        role=ROLE.fullmatch(told.get("ram/security-credentials/", "")) is not None,
        unasked=unasked,
    )


def on_ecs() -> bool:
    """Whether the firmware of the machine that we run on says Alibaba Cloud."""
    return read_host(host.Root("/"), None).cloud == CLOUD


def is_here(identifier: str, *, service: Callable[[], MetadataService] = MetadataService) -> bool | None:
    """Whether the instance of this id is the machine that we run on; `None` where that cannot be told.

    The firmware of this very machine is looked at, whatever tree is worked on: a container sees it too.
    """
    if not on_ecs():
        return False
    found = find(host.Root("/"), offline=False, service=service)
    # Only the service itself is believed here: what cloud-init left may be another machine's, of which this is a copy.
    return None if found.unasked or found.instance is None else found.instance == identifier


def _cloud_init(root: host.Root) -> dict[str, str]:
    """What cloud-init wrote down at boot, in the part of its file that everybody may read ("v1", "ds")."""
    try:
        data = json.loads(root.read(CLOUD_INIT, 1 << 20) or b"{}")
    except (ValueError, RecursionError):
        return {}
    found: dict[str, str] = {}
    if not isinstance(data, dict):
        return found
    ds = data.get("ds") if isinstance(data.get("ds"), dict) else {}
    meta = ds.get("meta_data") if isinstance(ds, dict) else None
    for part, names in (
        (meta, {"instance-id": "instance_id", "region-id": "region"}),
        (data.get("v1"), {"instance_id": "instance_id", "region": "region"}),
    ):
        if isinstance(part, dict):
            found |= {ours: part[theirs] for theirs, ours in names.items() if isinstance(part.get(theirs), str)}
    kind = meta.get("instance") if isinstance(meta, dict) else None
    if isinstance(kind, dict) and isinstance(kind.get("instance-type"), str):
        found["instance_type"] = kind["instance-type"]
    return found


def _fitting(pattern: re.Pattern[str], text: str | None) -> str | None:
    return text if text is not None and pattern.fullmatch(text) else None
