# SPDX-License-Identifier: GPL-2.0-or-later
"""Another type for the machine that is looked at: asked for where it can be, guessed by the rules where not."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from ejectable import host
from ejectable.advisories import choose
from ejectable.errors import WrongUsage
from ejectable.model import Status
from ejectable.remedies import Request, Situation, execute, instance_type
from ejectable.remedies.instance_type import InstanceType
from tests.host.trees import LEGACY_DISK, MODERN_NIC, Device, affected_module
from tests.host.trees import Machine as Host
from tests.remedies.ecs_server import INSTANCE, REGION, Api, Fault


def on_ecs(tmp_path: Path, kind: str | None, *, devices: tuple[Device, ...] = (LEGACY_DISK,)) -> Situation:
    """A captured tree of an affected ECS instance; cloud-init has left its type, where there is one."""
    root = Host(module=affected_module(), devices=devices).build(tmp_path / "machine")
    if kind is not None:
        left = root / "run/cloud-init/instance-data.json"
        left.parent.mkdir(parents=True)
        meta = {"instance": {"instance-type": kind}, "region-id": REGION, "instance-id": INSTANCE}
        left.write_text(json.dumps({"ds": {"meta_data": meta}}))
    return Situation(host.Root(root), choose(()), cache=False)


@pytest.mark.kernels
class TestThisMachine:
    """Planned for the machine that is looked at."""

    def test_without_credentials_the_rules_guess(
        self, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_ID")
        line = InstanceType().plan(on_ecs(tmp_path, "ecs.g6e.xlarge"), Request())
        assert line.state == "possible"
        assert not line.verified
        assert "its successor is likely ecs.g8i.xlarge" in line.why
        assert "there are no credentials" in line.why
        assert [shlex.split(text)[2] for text in line.commands][:3] == [
            "DescribeResourcesModification",
            "ModifyInstanceSpec",
            "StopInstance",
        ]
        assert all(INSTANCE in command and REGION in command for command in line.commands)
        assert any("ModifyPrepayInstanceSpec" in detail for detail in line.details)
        assert not api.asked

    def test_offline_and_without_the_sdk_too(self, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        situation = on_ecs(tmp_path, "ecs.c7.large")
        situation.offline = True
        assert "not asked: --offline" in InstanceType().plan(situation, Request()).why
        situation.offline = False
        monkeypatch.setattr(instance_type, "installed", lambda: False)
        assert "its SDK is not installed" in InstanceType().plan(situation, Request()).why
        assert not api.asked

    def test_with_credentials_the_api_is_asked(self, api: Api, tmp_path: Path) -> None:
        line = InstanceType().plan(on_ecs(tmp_path, "ecs.g7.large"), Request())
        assert "ECS offers ecs.g8i.large" in line.why
        assert any(f"--apply --instance {INSTANCE}" in detail for detail in line.details)

    def test_where_the_api_fails_the_rules_guess_and_it_is_said(self, api: Api, tmp_path: Path) -> None:
        api.faults = [Fault("*", "Forbidden.RAM", status=403, times=99)]
        line = InstanceType().plan(on_ecs(tmp_path, "ecs.g7.large"), Request())
        assert line.state == "possible"
        assert "these credentials have no right to do that" in line.why
        assert "likely ecs.g8i.large" in line.why

    def test_a_type_that_is_not_known_leaves_the_words_in_capitals(self, api: Api, tmp_path: Path) -> None:
        line = InstanceType().plan(on_ecs(tmp_path, None), Request())
        assert line.state == "possible"
        assert "--InstanceType INSTANCE_TYPE" in line.commands[1]
        assert "INSTANCE_ID" in line.commands[1]
        assert not api.asked

    def test_a_kind_without_a_counterpart_is_not_guessed(self, api: Api, tmp_path: Path) -> None:
        situation = on_ecs(tmp_path, "ecs.gn7i-c8g1.2xlarge")
        situation.offline = True
        line = InstanceType().plan(situation, Request())
        assert line.state == "impossible"
        assert "no counterpart" in line.why

    def test_a_modern_type_with_legacy_devices_is_no_cure(self, api: Api, tmp_path: Path) -> None:
        line = InstanceType().plan(on_ecs(tmp_path, "ecs.g8i.large"), Request())
        assert line.state == "impossible"
        assert "of generation 8 already, and yet vdb is not driven as modern" in line.why

    def test_modern_devices_are_what_it_is_for(self, api: Api, tmp_path: Path) -> None:
        line = InstanceType().plan(on_ecs(tmp_path, "ecs.g8i.large", devices=(MODERN_NIC,)), Request())
        assert (line.state, line.verified) == ("done", True)

    def test_a_kernel_that_was_repaired_live_does_not_make_them_modern(self, api: Api, tmp_path: Path) -> None:
        situation = on_ecs(tmp_path, "ecs.g7.large")
        safe = [msgspec.structs.replace(device, unplug="safe") for device in situation.assessment.devices]
        repaired = msgspec.structs.replace(situation.assessment, status=Status.MITIGATED, devices=tuple(safe))
        situation.__dict__["assessment"] = repaired
        line = InstanceType().plan(situation, Request())
        assert line.state == "possible"
        assert "ECS offers ecs.g8i.large" in line.why

    def test_modern_devices_of_an_older_type_need_no_other_one(self, api: Api, tmp_path: Path) -> None:
        line = InstanceType().plan(on_ecs(tmp_path, "ecs.g7.large", devices=(MODERN_NIC,)), Request())
        assert line.state == "impossible"
        assert "another type would change nothing" in line.why
        assert not api.asked

    def test_off_alibaba_cloud_it_is_impossible(self, api: Api, tmp_path: Path) -> None:
        situation = on_ecs(tmp_path, None)
        (tmp_path / "machine/sys/class/dmi/id/sys_vendor").write_text("QEMU\n")
        (tmp_path / "machine/sys/class/dmi/id/product_name").write_text("Standard PC\n")
        line = InstanceType().plan(situation, Request())
        assert line.state == "impossible"
        assert "no instance of Alibaba Cloud" in line.why
        with pytest.raises(WrongUsage, match="none of Alibaba Cloud"):
            execute.apply(situation, "instance-type", Request())
        assert not api.asked


def test_the_plan_of_an_ordinary_machine_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from ejectable import host; from ejectable.advisories import choose\n"
        "from ejectable.remedies import Request, Situation, execute\n"
        f"s = Situation(host.Root({str(tmp_path)!r}), choose(()), cache=False)\n"
        "execute.plan(s, Request(), ['instance-type', 'detach-while-stopped'])\n"
        "print(*(n for n in sys.modules if n.startswith(('alibabacloud', 'darabonba', 'Tea', 'requests', 'aiohttp'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_the_command_line_asks_of_another_instance(api: Api, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    where = ["--instance", INSTANCE, "--region", REGION, "--root", str(tmp_path / "tree"), "--no-cache"]
    argv = [sys.executable, "-m", "ejectable", "fix", "instance-type", *where, "--format", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["status"]) == (3, "unknown"), "of that machine nothing is known from here"
    assert "ecs.g7.large is older" in document["summary"]
    assert document["plan"][0]["commands"]
