# SPDX-License-Identifier: GPL-2.0-or-later
"""Other defects of virtio devices, and MANA's: told from Debian's kernels and from drivers with a defect put in."""

import pytest

from corpus.archive import fetch
from corpus.driver_modules import DRIVER_MODULES, DriverModule
from ejectable.advisories import Advisory, choose, registry
from ejectable.advisories.cleantx_spin import BREAKS
from ejectable.errors import Missing
from ejectable.experiment import Bench
from ejectable.model import SAFE, UNPLUG, Device, Effect, Event, Finding, Frame, Operation, Status
from tests.advisories.test_probe import first, missing
from tests.kernel.compiled import COMPILERS, compiled

A, F, N = Status.AFFECTED, Status.FIXED, Status.NOT_AFFECTED
MANA, SHUTDOWN, CONSOLE, SPIN = "CVE-2026-53297", "CVE-2025-38064", "CVE-2026-97995", "virtio-net-cleantx-spin"
FROZEN, NO_DRAIN, INDEX, AVQ = "CVE-2024-57946", "virtio-blk-no-drain", "CVE-2026-64457", "CVE-2024-53092"
SIBLINGS = (MANA, SHUTDOWN, CONSOLE, SPIN, FROZEN, NO_DRAIN, INDEX, AVQ)
OLD = {MANA: A, SHUTDOWN: A, CONSOLE: A, SPIN: A, FROZEN: F, NO_DRAIN: F}
# From the changelogs of Debian's packages: mana and the shutdown in 6.1.192-1 and 6.12.115-1, the console in 6.1.190-1
# and 6.12.111-1, the spin in 6.12.117-1; 6.1 never had the wrong index and the admin queue, 6.12.100 and later has both
# cured.
GENUINE = {
    "6.1.0-50-cloud-amd64": {**OLD, INDEX: N, AVQ: N},
    "6.1.0-50-cloud-arm64": {**OLD, INDEX: N, AVQ: N},
    "6.1.0-56-cloud-amd64": {**OLD, MANA: F, SHUTDOWN: F, CONSOLE: F, INDEX: N, AVQ: N},
    "6.12.107+deb12-cloud-amd64": {**OLD, INDEX: F, AVQ: F},
    "6.12.117+deb12-cloud-amd64": dict.fromkeys(SIBLINGS, F),
    "6.12.117+deb12-cloud-arm64": dict.fromkeys(SIBLINGS, F),
}
EDITED = [module for module in DRIVER_MODULES if module.variant != "stock"]


def advisory(name: str) -> Advisory:
    return registry()[name]


@pytest.mark.kernels
@pytest.mark.parametrize("release", GENUINE)
def test_debians_kernels_are_what_their_changelogs_say(release: str) -> None:
    try:
        path = fetch(f"linux-image-{release}", release.rpartition("-")[2])
    except Missing as error:
        missing(error)
    kernel = first(path)
    found = {name: advisory(name).probe(kernel) for name in SIBLINGS}
    assert {name: finding.status for name, finding in found.items()} == GENUINE[release]
    assert [name for name, finding in found.items() if finding.conflict] == []
    assert all(finding.evidence[0].kind == "executed" for finding in found.values())
    # 6.1.192 breaks all queues at each shutdown, and so makes of the loop a defect of every reboot.
    at_shutdown = any(evidence.claim == BREAKS for evidence in found[SPIN].evidence)
    assert at_shutdown is (GENUINE[release][SHUTDOWN] is F)


@pytest.mark.kernels
@pytest.mark.parametrize("module", EDITED, ids=lambda module: module.name)
def test_a_driver_with_a_defect_put_in_has_that_one_and_no_other(module: DriverModule) -> None:
    try:
        kernel = first(module.path())
    except Missing as error:
        missing(error)
    found = {name: advisory(name).probe(kernel) for name in module.edited.truth}
    assert {name: finding.status.value for name, finding in found.items()} == module.edited.truth
    assert not any(finding.conflict for finding in found.values())


BLK = """
typedef unsigned long u64;
struct request_queue { u64 a; }; struct gendisk { struct request_queue *queue; };
struct virtio_device; struct virtio_config_ops { void (*del_vqs)(struct virtio_device *); };
struct virtio_device { const struct virtio_config_ops *config; void *priv; };
struct virtio_blk { struct virtio_device *vdev; struct gendisk *disk; } unused;
extern void blk_mq_freeze_queue(struct request_queue *), blk_mq_unfreeze_queue(struct request_queue *);
extern void blk_mq_freeze_queue_anew(struct request_queue *), blk_mq_quiesce_queue(struct request_queue *);
extern struct request_queue other;
int virtblk_probe(struct virtio_device *v) { return 0; }
int virtblk_freeze(struct virtio_device *v)
{ struct virtio_blk *b = v->priv; struct request_queue *q = b->disk->queue; %s v->config->del_vqs(v); return 0; }
"""
MANA_SOURCE = """
typedef unsigned long u64;
struct device { u64 a; };
struct gdma_context { struct device *dev; }; struct mana_context { u64 a; };
struct gdma_dev { u64 id; struct gdma_context *gdma_context; void *driver_data; };
extern void kfree(void *), note(struct device *);
int mana_gd_resume(void) { return 0; }
void mana_remove(struct gdma_dev *gd, _Bool suspending)
{
	struct gdma_context *gc = gd->gdma_context; struct mana_context *ac = gd->driver_data;
	%s
	note(gc->dev);
	if (suspending) return;
	%s
	ac->a = 1;
	kfree(ac);
}
"""
CLEAR = "gd->driver_data = 0; gd->gdma_context = 0;"


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    ("freezes", "frozen", "no_drain"),
    [
        ("blk_mq_freeze_queue(q); blk_mq_unfreeze_queue(q);", F, F),
        ("blk_mq_freeze_queue(q);", A, F),
        ("blk_mq_quiesce_queue(q);", N, A),
        ("blk_mq_freeze_queue(q); blk_mq_unfreeze_queue(&other);", Status.UNKNOWN, F),
        ("blk_mq_freeze_queue_anew(q);", Status.UNKNOWN, Status.UNKNOWN),
        ("", Status.UNKNOWN, Status.UNKNOWN),
    ],
)
def test_what_suspend_does_to_a_disk_is_told_and_a_call_that_is_not_known_leaves_it_open(
    compiler: str, freezes: str, frozen: Status, no_drain: Status
) -> None:
    program = compiled(BLK % freezes, compiler, "-g")
    said = [advisory(name).experiment(Bench(program)).says for name in (FROZEN, NO_DRAIN)]
    assert said == [frozen, no_drain]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    ("guard", "clears", "says"),
    [
        ("", CLEAR, A),
        ("if (!gc || !ac) return;", CLEAR, F),
        ("", "", Status.UNKNOWN),  # nothing is cleared: it is another driver than the one that is known
    ],
)
def test_a_nic_is_removed_twice(compiler: str, guard: str, clears: str, says: Status) -> None:
    program = compiled(MANA_SOURCE % (guard, clears), compiler, "-g")
    assert advisory(MANA).experiment(Bench(program)).says is says


def device(kind: str, *, bits: tuple[int, ...] | None = (), **changed: object) -> Device:
    features = {} if bits is None else {"features": "".join("1" if bit in bits else "0" for bit in range(64))}
    given: dict[str, object] = {
        "name": "virtio0", "transport": "pci", "address": "0000:00:05.0", "kind": kind, "driver": "driver",
        "nodes": ("x0",), "mode": "modern", "hotpluggable": True, "unplug": "unknown", "reason": "",
        "attributes": features,
    }  # fmt: skip
    return Device(**{**given, **changed})  # type: ignore[arg-type]


def met(name: str, one: Device, status: Status = A) -> bool | None:
    reach = advisory(name).exposure(one, Finding(name, status, None, "", (), conflict=False))
    return None if reach is None else reach.met


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ((1, 5), True),  # statistics, reporting and no hinting: Proxmox, KubeVirt
        ((5,), True),
        ((3,), True),
        ((1, 3, 5), False),
        ((1, 3), False),
        ((1,), False),  # a plain balloon of QEMU's
        ((), False),
    ],
)
def test_a_balloon_meets_the_wrong_index_where_it_leaves_a_queue_out(bits: tuple[int, ...], expected: bool) -> None:
    assert met(INDEX, device("balloon", bits=bits)) is expected
    assert met(INDEX, device("balloon", bits=bits, driver=None)) is False
    assert met(INDEX, device("balloon", bits=bits, transport="mmio")) is False


def test_a_balloon_whose_features_are_not_known_may_meet_it_and_a_disk_does_not() -> None:
    reach = advisory(INDEX).exposure(device("balloon", bits=None), Finding(INDEX, A, None, "", (), conflict=False))
    assert reach is not None
    assert reach.met is None
    assert met(INDEX, device("disk")) is None


def test_devices_meet_what_they_are_made_of() -> None:
    assert met(CONSOLE, device("console", bits=(1,))) is True
    assert met(CONSOLE, device("console", bits=(0,))) is False
    assert met(CONSOLE, device("nic", bits=(1,))) is None
    assert met(AVQ, device("disk", bits=(32, 41))) is True
    assert met(AVQ, device("disk", bits=(32,))) is False
    for name in (FROZEN, NO_DRAIN):
        assert met(name, device("disk")) is True
        assert met(name, device("nic")) is None
    assert met(SHUTDOWN, device("rng")) is True
    assert met(SHUTDOWN, device("rng", driver=None)) is False


def test_a_nic_meets_the_spin_at_shutdown_only_where_shutdown_breaks_the_queues() -> None:
    spin = advisory(SPIN)
    plain = Finding(SPIN, A, None, "", (), conflict=False)
    from ejectable.model import Evidence, EvidenceKind

    breaking = Finding(SPIN, A, None, "", (Evidence(EvidenceKind.EXECUTED, A, "", claim=BREAKS),), conflict=False)
    for finding, operations in ((plain, {"surprise-removal"}), (breaking, {"surprise-removal", "shutdown"})):
        found = spin.exposures(device("nic"), finding)
        assert found is not None
        assert {(one.operation, one.effect, one.likelihood) for one in found[1]} == {
            (operation, "hang", "race") for operation in operations
        }


def test_a_mana_nic_meets_its_defect_only_once_its_interface_is_gone() -> None:
    for attributes, nodes, expected in (
        ({"net": "some"}, ("eth1",), False),
        ({"net": "none"}, (), True),
        ({}, (), None),
    ):
        nic = device("nic", bus="pci", driver="mana", attributes=attributes, nodes=nodes)
        reach = advisory(MANA).exposure(nic, Finding(MANA, A, None, "", (), conflict=False))
        assert reach is not None
        assert reach.met is expected
    assert met(MANA, device("nic", bus="pci", driver="mlx5_core")) is None


def test_all_are_asked_by_name_and_the_wrong_index_has_its_repair() -> None:
    assert set(SIBLINGS) <= set(choose(["all"]))
    assert set(choose(["vq-wrong-index", "cleantx-spin"])) == {INDEX, SPIN}
    assert not set(SIBLINGS).intersection(choose([]))
    part = advisory(INDEX).live_part
    assert part is not None
    assert part.advisory == INDEX


def test_races_say_may_and_certain_ones_do_not() -> None:
    assert {name for name in SIBLINGS if advisory(name).may} == {SHUTDOWN, CONSOLE, SPIN, FROZEN, NO_DRAIN}


def test_what_only_a_shutdown_or_a_suspend_meets_is_no_matter_of_unplugging() -> None:
    for name in (SHUTDOWN, FROZEN, NO_DRAIN):
        assert not {one.operation for one in advisory(name).operations} & set(UNPLUG)
    assert {one.effect for one in advisory(CONSOLE).operations} == {Effect.CORRUPTION}
    assert Operation.SHUTDOWN not in {one.operation for one in advisory(INDEX).operations}


def event(kind: str, *functions: str, address: str | None = None) -> Event:
    frames = tuple(Frame(name, 1, 2, None, True) for name in functions)
    return Event(
        "log", 1, None, kind, kind, functions[0], f"{functions[0]}+0x1/0x2", None, "kworker/1", 1, 1, None, None,  # type: ignore[arg-type]
        None, False, False, "", frames, address=address,
    )  # fmt: skip


CRASHES = {
    INDEX: event("null-deref", "vp_del_vqs", "remove_common", "virtballoon_remove", "virtio_dev_remove", address="0x8"),
    MANA: event("null-deref", "mana_remove", "mana_gd_remove", "pci_device_remove", address="0x0"),
    CONSOLE: event("paging-fault", "kfree", "free_buf", "remove_vqs", "virtcons_remove", "virtio_dev_remove"),
    AVQ: event("null-deref", "vp_reset", "virtio_reset_device", "virtio_dev_remove", address="0x0"),
    SPIN: event("soft-lockup", "virtqueue_enable_cb_delayed", "virtnet_poll", "__napi_poll", "net_rx_action"),
    FROZEN: event("hung-task", "__schedule", "schedule", "blk_queue_enter", "submit_bio", "dpm_suspend", "pm_suspend"),
}
OTHERS = {
    "a NULL call in vp_del_vqs": event("null-call", "vp_del_vqs", "virtblk_remove", "virtio_dev_remove", address="0x0"),
    "a busy network": event("soft-lockup", "napi_gro_receive", "receive_buf", "virtnet_poll", "__napi_poll"),
    "another user of kfree": event("paging-fault", "kfree", "virtblk_remove", "virtio_dev_remove"),
    "a disk that hangs by itself": event("hung-task", "__schedule", "schedule", "blk_queue_enter", "submit_bio"),
    "queues of a MANA port": event("null-deref", "mana_fence_rqs", "mana_detach", "mana_remove", address="0x10"),
}


def test_each_crash_is_told_as_its_own_defect_and_as_no_other() -> None:
    for name, crash in CRASHES.items():
        said = {one for one in SIBLINGS if (found := advisory(one).recognise(crash)) and found.status is A}
        assert said == {name}


@pytest.mark.parametrize("what", OTHERS)
def test_what_only_looks_like_one_is_none_of_them(what: str) -> None:
    found = [advisory(name).recognise(OTHERS[what]) for name in SIBLINGS]
    assert all(one is None or one.status in SAFE for one in found)


@pytest.mark.parametrize("name", SIBLINGS)
def test_every_fact_of_a_sibling_names_its_source(name: str) -> None:
    facts = advisory(name).facts
    assert facts.story is not None
    assert facts.references
    sources = [one.source for one in facts.commits] + [one.source for one in facts.releases]
    assert all(sources + [one.source for one in facts.packages] + [one.source for one in facts.look_alikes])
    assert any(commit.role == "fixed" for commit in facts.commits)
    assert advisory(name).remedies
