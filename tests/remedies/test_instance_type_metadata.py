# SPDX-License-Identifier: GPL-2.0-or-later
"""Which instance this is: the metadata service in both of its modes, and what pretends to be one."""

import json
import time
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import Missing, WrongUsage
from ejectable.remedies.ecs import instance
from ejectable.remedies.ecs.instance import checked_instance, find, is_here, subject_of
from ejectable.remedies.ecs.metadata import MetadataService
from ejectable.remedies.remediation import Request
from tests.remedies.ecs_metadata import Metadata, telling
from tests.remedies.ecs_server import INSTANCE, REGION

PATHS = ("instance-id", "region-id", "instance/instance-type", "no/such/thing")


@pytest.mark.parametrize(
    "service",
    [Metadata(), Metadata(hardened=True), Metadata(tokens=False)],
    ids=["both modes", "hardened only", "normal only"],
)
def test_it_is_read_in_both_modes(service: Metadata) -> None:
    with telling(service) as address:
        told = MetadataService(address).read(PATHS)
    assert told == {"instance-id": INSTANCE, "region-id": REGION, "instance/instance-type": "ecs.g7.large"}
    assert service.asked[0] == ("PUT", "/latest/api/token"), "a token is asked for first"


def test_hardened_without_a_token_says_so() -> None:
    with (
        telling(Metadata(hardened=True, tokens=False)) as address,
        pytest.raises(Missing, match="wants a token") as caught,
    ):
        MetadataService(address).read(PATHS)
    assert "--instance" in (caught.value.hint or "")


@pytest.mark.parametrize("broken", ["slow", "huge"])
def test_an_answer_that_does_not_end_is_given_up(broken: str) -> None:
    began = time.monotonic()
    with telling(Metadata(broken=broken)) as address, pytest.raises(Missing, match="no answer that makes sense"):
        MetadataService(address).read(PATHS)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("broken", ["html", "redirect"])
def test_what_is_no_value_is_not_taken_for_one(broken: str) -> None:
    with telling(Metadata(broken=broken)) as address:
        assert MetadataService(address).read(PATHS) == {}


def test_nobody_there_is_an_answer_within_a_second() -> None:
    with telling(Metadata()) as address:
        pass  # closed again: nothing listens on that port
    began = time.monotonic()
    with pytest.raises(Missing, match="metadata service of ECS"):
        MetadataService(address).read(PATHS)
    assert time.monotonic() - began < 1


def test_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with telling(Metadata()) as address:
        assert MetadataService(address).read(["region-id"]) == {"region-id": REGION}


@pytest.mark.parametrize("text", ["localhost", "http://1.2.3.4:80/", "a b:80", "host:0", "host:99999", "host:x"])
def test_an_address_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EJECTABLE_ECS_METADATA", text)
    with pytest.raises(WrongUsage, match="EJECTABLE_ECS_METADATA"):
        MetadataService()


def live(tree: Path) -> host.Root:
    """A tree that is taken for the machine itself."""
    tree.mkdir(exist_ok=True)
    root = host.Root(tree)
    root.live = True
    return root


def test_values_that_cannot_be_ids_are_dropped(tmp_path: Path) -> None:
    service = Metadata()
    service.values |= {"instance-id": "i-1;reboot", "region-id": "../../etc", "instance/instance-type": "ecs.$(id).x"}
    with telling(service) as address:
        found = find(live(tmp_path / "m"), offline=False, service=lambda: MetadataService(address))
    assert (found.instance, found.region, found.type, found.unasked) == (None, None, None, None)


def test_a_role_of_the_instance_is_noticed(tmp_path: Path) -> None:
    service = Metadata()
    with telling(service) as address:
        assert not find(live(tmp_path / "m"), offline=False, service=lambda: MetadataService(address)).role
        service.values["ram/security-credentials/"] = "OpsRole"
        assert find(live(tmp_path / "m"), offline=False, service=lambda: MetadataService(address)).role


def never() -> MetadataService:
    raise AssertionError("the metadata service was asked")


@pytest.mark.parametrize(("is_live", "offline", "why"), [(False, False, "this is a tree"), (True, True, "--offline")])
def test_of_a_tree_and_offline_only_what_cloud_init_left_is_known(
    is_live: bool, offline: bool, why: str, tmp_path: Path
) -> None:
    left = tmp_path / "run/cloud-init/instance-data.json"
    left.parent.mkdir(parents=True)
    meta = {"instance": {"instance-type": "ecs.c6.large"}, "region-id": "cn-beijing"}
    left.write_text(json.dumps({"v1": {"instance_id": "i-2ze000000000", "region": "cn-x"}, "ds": {"meta_data": meta}}))
    root = host.Root(tmp_path)
    root.live = is_live
    found = find(root, offline=offline, service=never)
    assert (found.instance, found.type) == ("i-2ze000000000", "ecs.c6.large")
    assert found.region == "cn-x"
    assert why in (found.unasked or "")


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"v1": 3, "ds": []}', '{"ds": {"meta_data": {"instance": "x"}}}', "[" * 9999]
)
def test_what_cloud_init_left_may_be_anything(text: str, tmp_path: Path) -> None:
    left = tmp_path / "run/cloud-init/instance-data.json"
    left.parent.mkdir(parents=True)
    left.write_text(text)
    assert find(host.Root(tmp_path), offline=True).instance is None


def test_another_instance_is_told_from_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = live(tmp_path / "m")
    with telling(Metadata()) as address:
        monkeypatch.setenv("EJECTABLE_ECS_METADATA", address)
        this = subject_of(root, "alibaba", Request(instance=INSTANCE), offline=False)
        other = subject_of(root, "alibaba", Request(instance="i-other000"), offline=False)
        elsewhere = subject_of(root, "aws", Request(instance=INSTANCE), offline=False)
    assert (this.other, this.type) == (False, "ecs.g7.large")
    assert (other.other, other.type, other.region) == (True, None, REGION)
    assert (elsewhere.other, elsewhere.region) == (True, None), "off Alibaba Cloud nobody is asked"


@pytest.mark.parametrize("text", ["", "i-", "web-1", "i-abc def", "i-ABCDEF", "i-" + "a" * 99, "-i-abcdef"])
def test_an_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match="no id of an ECS instance"):
        checked_instance(text)


def test_whether_it_is_this_machine_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "on_ecs", lambda: False)
    assert is_here(INSTANCE, service=never) is False
    monkeypatch.setattr(instance, "on_ecs", lambda: True)
    with telling(Metadata()) as address:
        assert is_here(INSTANCE, service=lambda: MetadataService(address)) is True
        assert is_here("i-other000", service=lambda: MetadataService(address)) is False
    assert is_here("i-other000", service=lambda: MetadataService(address)) is None, "nobody answers any more"


def test_what_cloud_init_left_is_not_enough_to_tell_machines_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "on_ecs", lambda: True)
    left = instance.Identity("i-original", REGION, None, unasked="nobody answers")
    monkeypatch.setattr(instance, "find", lambda *_, **__: left)
    assert is_here("i-original") is None
    assert is_here("i-thecopy00") is None
