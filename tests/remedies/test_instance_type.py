# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving an instance to another type: the real SDK over HTTP, against a server that answers as the API does."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ejectable.errors import Missing, WrongUsage
from ejectable.model import Applied, Remedy, Status
from ejectable.remedies import Request, execute, instance_type
from ejectable.remedies.ecs import proof, service
from ejectable.remedies.ecs.offers import chosen, describe, offers
from tests.host.trees import LEGACY_DISK, MODERN_NIC, Device, affected_module
from tests.host.trees import Machine as Host
from tests.remedies.ecs_metadata import Metadata, telling
from tests.remedies.ecs_server import (
    INSTANCE,
    KEY,
    REGION,
    SECRET,
    TOKEN,
    Api,
    Fault,
    Kind,
    Machine,
    elsewhere,
    one_process,
)

REQUEST = Request(instance=INSTANCE, region=REGION)
AT_ONCE = ("DescribeInstances", "DescribeInstanceTypes", "DescribeResourcesModification")


def planned(tmp_path: Path, request: Request = REQUEST) -> Remedy:
    (line,) = execute.plan(elsewhere(tmp_path), request, ["instance-type"])
    return line


def applied(tmp_path: Path, request: Request = REQUEST) -> Applied:
    return execute.apply(elsewhere(tmp_path), "instance-type", request)


def test_the_plan_asks_the_api_and_changes_nothing(api: Api, tmp_path: Path) -> None:
    line = planned(tmp_path)
    assert line.state == "possible"
    assert "ecs.g7.large is older than the 8th generation" in line.why
    assert "ecs.g8i.large (2 vCPU, 8 GiB)" in line.why
    assert not line.verified, "that it helps, only the machine can show"
    assert [shlex.split(text)[2] for text in line.commands] == [
        "ModifyInstanceSpec",
        "StopInstance",
        "DescribeInstances",
        "ModifyInstanceSpec",
        "StartInstance",
        "DescribeInstances",
    ]
    assert shlex.split(line.commands[0])[-2:] == ["--DryRun", "true"]
    assert all(INSTANCE in command for command in line.commands)
    assert any("ecs.g8i.xlarge" in detail for detail in line.details), "the next best is shown"
    assert any("feature bit 32" in detail for detail in line.details)
    assert set(api.actions()) == set(AT_ONCE)
    assert api.actions().count("DescribeInstanceTypes") > 2, "the server gives pages of three"
    assert execute.status(elsewhere(tmp_path), "instance-type", REQUEST) is Status.UNKNOWN


def test_it_is_rehearsed_stopped_changed_started_and_looked_at(api: Api, tmp_path: Path, own_state: Path) -> None:
    api.instances[INSTANCE].looks = 3
    done = applied(tmp_path)
    assert done.verified
    assert done.changes == (
        f"Stopped {INSTANCE}.",
        f"Changed {INSTANCE} from ecs.g7.large to ecs.g8i.large.",
        f"Started {INSTANCE}.",
    )
    assert "All 2 virtio devices are driven as modern" in done.why
    assert done.undo == "ejectable fix instance-type --undo"
    writes = [(action, asked) for action, asked in api.asked if not action.startswith("Describe")]
    assert [(action, asked.get("DryRun")) for action, asked in writes] == [
        ("StopInstance", "true"),
        ("ModifyInstanceSpec", "true"),
        ("StopInstance", None),
        ("ModifyInstanceSpec", "true"),
        ("ModifyInstanceSpec", None),
        ("StartInstance", None),
        ("RunCommand", None),
    ]
    stop = writes[2][1]
    assert (stop["StoppedMode"], stop["ForceStop"]) == ("KeepCharging", "false"), "capacity and addresses are kept"
    assert writes[4][1]["ClientToken"], "asked twice, it is done once"
    assert (api.instances[INSTANCE].type, api.instances[INSTANCE].status) == ("ecs.g8i.large", "Running")
    kept = own_state
    audit = (kept / "audit.log").read_text().splitlines()
    assert [line.partition('what="')[2].split()[0] for line in audit] == ["stopped", "changed", "started"]
    assert all('undo="ejectable fix instance-type --undo' in line for line in audit)
    for path in kept.rglob("*"):
        assert path.is_dir() or not [word for word in (KEY, SECRET) if word in path.read_text()], (
            "no record holds a key"
        )


def test_it_is_taken_back(api: Api, tmp_path: Path) -> None:
    applied(tmp_path)
    undone = execute.undo(elsewhere(tmp_path), "instance-type", Request())
    assert undone.verified
    assert (api.instances[INSTANCE].type, api.instances[INSTANCE].status) == ("ecs.g7.large", "Running")
    with pytest.raises(WrongUsage, match="nothing to undo"):
        execute.undo(elsewhere(tmp_path), "instance-type", Request())


def test_what_was_stopped_stays_stopped_and_is_not_called_proven(api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE].status = "Stopped"
    done = applied(tmp_path)
    assert api.instances[INSTANCE].status == "Stopped"
    assert "StartInstance" not in api.actions()
    assert not done.verified
    assert "ejectable check" in done.next_steps[0]


@pytest.mark.parametrize(
    ("machine", "why", "step"),
    [
        (Machine(bits="virtio0 1 bound\nvirtio1 0 bound\n"), "Still driven as legacy devices", "not cured"),
        (Machine(bits="virtio0 1 bound\nwhat is this\n"), "does not show", "ejectable check"),
        (Machine(bits=""), "does not show", "ejectable check"),
        (Machine(assistant="Failed"), "gave no answer", "ejectable check"),
    ],
    ids=["legacy", "nonsense", "empty", "no assistant"],
)
def test_a_new_type_alone_proves_nothing(machine: Machine, why: str, step: str, api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE] = machine
    done = applied(tmp_path)
    assert not done.verified
    assert why in done.why
    assert step in done.next_steps[0]
    assert machine.type == "ecs.g8i.large", "what was asked for is done all the same"


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("devices", "word"),
    [
        ((MODERN_NIC,), "modern"),
        ((LEGACY_DISK, MODERN_NIC), "legacy"),
        ((Device(6, 2, None, None, bit_32=False), MODERN_NIC), "unknown"),  # no driver: its bits say nothing yet
        ((), "unknown"),
    ],
)
def test_what_cloud_assistant_runs_there_sees_how_devices_are_driven(
    devices: tuple[Device, ...], word: str, tmp_path: Path
) -> None:
    root = Host(module=affected_module(), devices=devices).build(tmp_path / "machine")
    (root / "sys/bus/pci/drivers/virtio-pci").mkdir(parents=True)
    for driver in ("virtio_blk", "virtio_net"):
        (root / "sys/bus/virtio/drivers" / driver).mkdir(parents=True)
    (root / "sys/bus/virtio/devices").mkdir(parents=True, exist_ok=True)
    command = proof.COMMAND.replace("/sys/", f"{root}/sys/")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert proof.judged(done.stdout.strip()).word == word


def test_one_of_a_modern_generation_is_looked_at_and_left(api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE].type = "ecs.g8i.large"
    assert planned(tmp_path).state == "impossible"
    done = applied(tmp_path)
    assert done.verified
    assert done.changes == ()
    assert done.undo is None
    assert "StopInstance" not in api.actions()


def test_one_of_a_modern_generation_is_moved_when_asked_to(api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE].type = "ecs.g8i.large"
    request = Request(instance=INSTANCE, region=REGION, to="ecs.g8i.xlarge")
    assert "ecs.g8i.large is of generation 8 already; ECS offers ecs.g8i.xlarge" in planned(tmp_path, request).why
    assert applied(tmp_path, request).verified
    assert api.instances[INSTANCE].type == "ecs.g8i.xlarge"


def test_the_machine_itself_is_not_stopped(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dmi = tmp_path / "tree/sys/class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "sys_vendor").write_text("Alibaba Cloud\n")
    situation = elsewhere(tmp_path)
    situation.root.live = True
    with telling(Metadata(hardened=True)) as address:
        monkeypatch.setenv("EJECTABLE_ECS_METADATA", address)
        for request in (Request(), REQUEST):
            with pytest.raises(WrongUsage, match="this very machine") as caught:
                execute.apply(situation, "instance-type", request)
            assert f"--instance {INSTANCE} --region {REGION} --to ecs.g8i.large" in (caught.value.hint or "")
    assert api.instances[INSTANCE].status == "Running"
    assert {asked.get("DryRun") for action, asked in api.asked if not action.startswith("Describe")} == {"true"}


@pytest.mark.parametrize(("here", "says"), [(True, "is this very machine"), (None, "It cannot be told whether")])
def test_nor_where_that_cannot_be_told(
    here: bool | None, says: str, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_type, "is_here", lambda identifier: here)
    with pytest.raises(WrongUsage, match=says):
        applied(tmp_path)
    assert api.instances[INSTANCE].status == "Running"


@pytest.mark.parametrize("status", ["Starting", "Stopping", "Pending"])
def test_one_that_is_neither_here_nor_there_is_left(status: str, api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE].status = status
    with pytest.raises(Missing, match=f"is {status}"):
        applied(tmp_path)
    assert not [action for action in api.actions() if not action.startswith("Describe")]


def test_a_change_that_is_under_way_is_waited_for(api: Api, tmp_path: Path) -> None:
    api.faults = [Fault("StartInstance", "LastOrderProcessing", status=400, times=2)]
    assert applied(tmp_path).verified


def test_a_subscription_is_changed_when_its_type_was_named(api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE].charge = "PrePaid"
    line = planned(tmp_path)
    assert "an order that is paid at once" in line.cost
    assert any("ModifyPrepayInstanceSpec" in command for command in line.commands)
    operations = [asked["OperationType"] for action, asked in api.asked if action == "DescribeResourcesModification"]
    assert operations == ["Upgrade", "Downgrade"]
    with pytest.raises(WrongUsage, match="places an order") as caught:
        applied(tmp_path)
    assert caught.value.hint == "Name the type, to agree to it: --to ecs.g8i.large"
    assert api.instances[INSTANCE].status == "Running"
    done = applied(tmp_path, Request(instance=INSTANCE, region=REGION, to="ecs.g8i.large"))
    assert done.verified
    assert "Its order is 20001." in done.changes
    assert "ModifyPrepayInstanceSpec" in api.actions()
    assert "ModifyInstanceSpec" not in api.actions()


def test_taking_a_subscription_back_orders_nothing(api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE].charge = "PrePaid"
    applied(tmp_path, Request(instance=INSTANCE, region=REGION, to="ecs.g8i.large"))
    undone = execute.undo(elsewhere(tmp_path), "instance-type", Request())
    assert not undone.verified
    assert "Not everything is as it was before" in undone.why
    assert "not done unasked" in undone.why
    assert api.orders == 1
    assert api.actions().count("StopInstance") == 2, "the rehearsal, and once when it was changed"
    assert (api.instances[INSTANCE].type, api.instances[INSTANCE].status) == ("ecs.g8i.large", "Running")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, service.Ecs]]:
    with one_process(tmp_path_factory.mktemp("home"), patience_s=1.0) as both:
        yield both


@pytest.mark.parametrize(
    ("current", "stock", "expected"),
    [
        ("ecs.g7.large", ["ecs.g8a.large", "ecs.g8i.large", "ecs.g9i.large"], "ecs.g8i.large"),
        ("ecs.g7.large", ["ecs.g8a.large", "ecs.g8i.xlarge"], "ecs.g8a.large"),  # the size goes before the maker
        ("ecs.g7.large", ["ecs.g8ine.large", "ecs.g8a.large"], "ecs.g8a.large"),  # NVMe only where it must be
        ("ecs.g7.large", ["ecs.g8ine.large", "ecs.g8y.large"], "ecs.g8ine.large"),  # never another architecture
        ("ecs.g7.large", ["ecs.r8i.large", "ecs.c8i.large"], "ecs.r8i.large"),  # never less memory
        ("ecs.t6-c1m1.small", ["ecs.c8i.large", "ecs.g8i.xlarge"], "ecs.c8i.large"),
        (
            "ecs.g7.large",
            ["ecs.g8i.large:ClosedWithStock", "ecs.g8a.large", "ecs.g9i.large:WithoutStock"],
            "ecs.g8a.large",
        ),
        ("ecs.g7.large", ["ecs.g9i.large:WithoutStock"], None),
        ("ecs.g7.large", ["ecs.g7.xlarge", "ecs.i4.large", "ecs.gn8is.large", "ecs.unknown.large", "odd"], None),
    ],
)
def test_the_closest_type_is_chosen(
    current: str, stock: list[str], expected: str | None, session: tuple[Api, service.Ecs]
) -> None:
    api, ecs = session
    api.instances[INSTANCE].type = current
    api.stock = {name.partition(":")[0]: name.partition(":")[2] or "WithStock" for name in stock}
    described = describe(ecs, INSTANCE)
    found = offers(ecs, described)
    if expected is None:
        with pytest.raises(WrongUsage, match="none is of generation 8 or later"):
            chosen(described, found, None)
    else:
        assert chosen(described, found, None).name.name == expected


def test_disks_over_nvme_are_told(api: Api, tmp_path: Path) -> None:
    api.stock = {"ecs.g8ine.large": "WithStock"}
    line = planned(tmp_path)
    assert "disks over NVMe" in line.why
    assert any("no virtio devices at all (NICs still are)" in detail for detail in line.details)


def test_another_cluster_of_the_zone_is_the_second_choice(api: Api, tmp_path: Path) -> None:
    api.stock = {"ecs.g7.xlarge": "WithStock"}
    api.far_stock = {"ecs.g8i.large": "WithStock"}
    line = planned(tmp_path)
    assert "--AllowMigrateAcrossZone true" in line.commands[0]
    assert any("another cluster of the zone; its private address stays" in detail for detail in line.details)
    api.instances[INSTANCE].network = "classic"
    assert any("private address changes" in detail for detail in planned(tmp_path).details)
    assert applied(tmp_path).verified
    changed = [asked for action, asked in api.asked if action == "ModifyInstanceSpec"]
    assert {asked["AllowMigrateAcrossZone"] for asked in changed} == {"true"}


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("ecs.g7.xlarge", "of generation 7"),
        ("ecs.gn8is.large", "cannot be compared"),
        ("g8i.large", "no instance type"),
        ("ecs.g9i.large", "not on offer"),
        ("ecs.g8y.large", "not on offer"),
    ],
)
def test_a_type_that_does_not_help_or_is_not_offered_is_refused(to: str, why: str, api: Api, tmp_path: Path) -> None:
    request = Request(instance=INSTANCE, region=REGION, to=to)
    line = planned(tmp_path, request)
    assert line.state == "impossible"
    assert why in line.why
    with pytest.raises(WrongUsage, match=why):
        applied(tmp_path, request)
    assert api.instances[INSTANCE].status == "Running"


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (Machine(type="ecs.gn7i-c8g1.2xlarge"), "GPU or local disks"),
        (Machine(type="ecs.i4.large"), "GPU or local disks"),
        (Machine(spot="SpotAsPriceGo"), "preemptible"),
    ],
)
def test_what_cannot_be_moved_says_why(machine: Machine, why: str, api: Api, tmp_path: Path) -> None:
    api.instances[INSTANCE] = machine
    line = planned(tmp_path)
    assert line.state == "impossible"
    assert why in line.why
    with pytest.raises(WrongUsage, match=why):
        applied(tmp_path)
    assert machine.status == "Running"


def test_nothing_that_fits_says_how_many_there_were(api: Api, tmp_path: Path) -> None:
    api.stock = {"ecs.g7.xlarge": "WithStock", "ecs.g8i.2xlarge": "WithStock", "ecs.c8i.large": "WithStock"}
    api.types["ecs.ebmg8i.large"] = Kind(2, 8)
    api.stock["ecs.ebmg8i.large"] = "WithStock"  # a whole server is another kind of machine
    line = planned(tmp_path)
    assert line.state == "impossible"
    assert "Of the 4 types that ECS offers" in line.why


def test_temporary_credentials_go_along(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.sts = True
    monkeypatch.setenv("ALIBABA_CLOUD_SECURITY_TOKEN", TOKEN)
    assert planned(tmp_path).state == "possible"


def test_credentials_are_found_where_the_sdk_looks_for_them(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_ID")
    monkeypatch.delenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    profile = {"name": "ops", "mode": "AK", "access_key_id": KEY, "access_key_secret": SECRET, "region_id": REGION}
    config = tmp_path / "home/.aliyun/config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"current": "ops", "profiles": [profile]}))
    assert "ECS offers ecs.g8i.large" in planned(tmp_path).why
    config.write_text("not JSON")
    line = planned(tmp_path)
    assert "No credentials for Alibaba Cloud were found" in line.why
    assert line.state == "possible"


def test_the_wrong_mode_of_payment_is_never_asked_for(api: Api, tmp_path: Path) -> None:
    applied(tmp_path)
    assert "ModifyPrepayInstanceSpec" not in api.actions()
