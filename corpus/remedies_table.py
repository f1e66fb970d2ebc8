# SPDX-License-Identifier: GPL-2.0-or-later
"""Each remedy on each kind of host, as a person types it: plan, apply, verify, undo. Writes docs/remedies-table.md.

    make remedies-table                     everything; as root, for the package managers' systems (some minutes)
    make remedies-table ARGS=--quick        without the package managers

Trees of machines and of sources are made from Debian's packages, package managers are real ones in a chroot, the API of
Alibaba Cloud is a server on this machine that answers as the real one. Guests are `make live-proof` and
`make live-whole`. A result that contradicts the claim is marked, and makes the exit code 2.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corpus import chroots, patches, trees
from ejectable.cli.app import run
from ejectable.remedies.ecs import change, proof
from tests.host.trees import Machine, affected_module
from tests.remedies import ecs_server

__all__ = ["Row", "rows"]

TARGET = Path("docs/remedies-table.md")
HEAD = """<!-- Written by `make remedies-table`: do not edit. -->
# Each remedy on each kind of host

What was typed, and what came of it: `ejectable fix REMEDY` (plan), `--apply`, the plan again (verify), `--undo`; after
which every file has to be as it was. Machines with the defect are trees with Debian's kernel and a `virtio_pci.ko` that
has the faulty callback.

| remedy | host | plan | apply | verify | undo |
|---|---|---|---|---|---|
"""
TAIL = """
Running kernels, repaired in guests: [live-proof.md](live-proof.md), written by `make live-proof` and `make live-whole`.
"""
GRUB = "etc/default/grub"


class Row(msgspec.Struct):
    """One line; `wrong` says what contradicts the claim."""

    remedy: str
    host: str
    plan: str = "-"
    apply: str = "-"
    verify: str = "-"
    undo: str = "-"
    wrong: list[str] = []

    def expect(self, claim: bool, what: str) -> None:
        """Note what does not hold."""
        if not claim:
            self.wrong.append(what)

    def __str__(self) -> str:
        cells = [self.remedy, self.host, self.plan, self.apply, self.verify, self.undo]
        if self.wrong:
            cells[-1] += f" **{'; '.join(self.wrong)}**"
        return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def ask(*words: str) -> tuple[int, dict[str, Any], str]:
    """`ejectable fix`: exit code, document (empty where there is none), the errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(["fix", *words, "--no-cache", "--format", "json"])
    return code, json.loads(out.getvalue()) if out.getvalue() else {}, err.getvalue()


def fix(*words: str) -> tuple[int, dict[str, Any], str]:
    """The same, for a remedy that needs no network."""
    return ask(*words, "--offline")


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, but our own records."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and "var/lib/ejectable" not in str(path)
    }


def plan_of(row: Row, code: int, found: Mapping[str, Any], said: str) -> str:
    """The state of the plan's one line; its text goes into the row."""
    row.expect(bool(found), f"no plan, {code}: {said.strip()}")
    if not found:
        return "none"
    line = found["plan"][0]
    why = line["why"].split(". ")[0].rstrip(".")
    row.plan = line["state"] + (", verified" if line["verified"] else "") + f": {why}"
    return str(line["state"])


def whole(row: Row, folder: Path, *words: str) -> Row:
    """Plan, apply, verify, undo of a remedy that helps on this host."""
    before = state(folder)
    row.expect(plan_of(row, *fix(row.remedy, *words)) == "possible", "not possible")
    row.expect(state(folder) == before, "the plan changed something")
    code, found, said = fix(row.remedy, *words, "--apply")
    row.expect(code == 0 and bool(found) and found["applied"]["verified"], f"apply ended with {code}: {said.strip()}")
    if not found:
        return row
    row.apply = " ".join(found["applied"]["changes"]).replace(str(folder), "")
    code, found, said = fix(row.remedy, *words)
    verified = bool(found) and found["plan"][0]["state"] == "done"
    row.expect(verified, "the plan does not say done afterwards")
    row.verify = f"done: {found['plan'][0]['why'].split('. ')[0].rstrip('.')}" if found else "-"
    code, found, said = fix(row.remedy, *words, "--undo")
    row.expect(code == 0, f"undo ended with {code}: {said.strip()}")
    same = state(folder) == before
    row.expect(same, "undo left something behind")
    row.undo = "every file as before" if same else "differs"
    return row


def refused(row: Row, folder: Path, *words: str, code: int = 69) -> Row:
    """Apply is refused, and nothing is left behind."""
    before = state(folder)
    plan_of(row, *fix(row.remedy, *words))
    found, _, said = fix(row.remedy, *words, "--apply")
    row.expect(found == code, f"apply ended with {found}, not {code}")
    row.apply = f"refused ({found}): {said.strip().splitlines()[0].removeprefix('ejectable: ')}" if said else "-"
    same = state(folder) == before
    row.expect(same, "something was left behind")
    row.undo = "nothing to undo: every file as before" if same else "differs"
    return row


def planned_only(row: Row, *words: str, expected: str) -> Row:
    """What is only said, not done."""
    row.expect(plan_of(row, *fix(row.remedy, *words)) == expected, f"not {expected}")
    return row


def machine(folder: Path, **options: Any) -> Path:
    """A machine with the defect."""
    return Machine(module=affected_module(), **options).build(folder / "machine")


def panic_policy(folder: Path) -> Iterator[Row]:
    """What to live with meanwhile."""
    tree = machine(folder, panic_on_oops=0, panic=0)
    yield whole(Row("panic-policy", "machine with the defect, panic_on_oops=0"), tree, "--root", str(tree))
    (tree / "etc/sysctl.d").mkdir()
    (tree / "etc/sysctl.d/99-local.conf").write_text("kernel.panic_on_oops = 0\n")
    yield refused(Row("panic-policy", "the same, a later file sets 0"), tree, "--root", str(tree))
    image = machine(folder / "image", procfs=False, sysfs=False, panic_on_oops=None)
    yield whole(Row("panic-policy", "mounted image"), image, "--root", str(image))
    fixed = Machine(module=affected_module("fixed")).build(folder / "fixed")
    yield planned_only(Row("panic-policy", "kernel with the fix"), "--root", str(fixed), expected="impossible")


def force_legacy(folder: Path) -> Iterator[Row]:
    """Devices that are legacy only because it was asked for."""
    word = "virtio_pci.force_legacy=1"
    tree = machine(folder, command_line=f"root=/dev/vda1 ro {word}")
    (tree / "etc/default").mkdir()
    (tree / GRUB).write_text(f'GRUB_CMDLINE_LINUX="console=ttyS0 {word}"\n')
    row = Row("force-legacy", "machine that GRUB boots with force_legacy=1")
    yield whole(row, tree, "--root", str(tree))
    other = machine(folder / "module")
    (other / "etc/modprobe.d").mkdir()
    (other / "etc/modprobe.d/virtio.conf").write_text("options virtio_pci force_legacy=1\n")
    (other / "sys/module/virtio_pci/parameters").mkdir()
    (other / "sys/module/virtio_pci/parameters/force_legacy").write_text("Y\n")
    yield whole(Row("force-legacy", "machine with an option in modprobe.d"), other, "--root", str(other))
    plain = machine(folder / "plain")
    yield planned_only(
        Row("force-legacy", "machine that asks for nothing"), "--root", str(plain), expected="impossible"
    )


def source_patch(folder: Path) -> Iterator[Row]:
    """Kernel source trees."""
    for family, variant, expected in (
        ("6.1", "affected", None),
        ("6.12", "affected", None),
        ("6.1", "fixed", "done"),
        ("6.1", "stock", "done"),
        ("6.12", "stock", "done"),
    ):
        top = folder / f"linux-{family}-{variant}"
        (top / "drivers").mkdir(parents=True)
        shutil.copytree(trees.source(family) / "drivers/virtio", top / "drivers/virtio")
        shutil.copy(trees.source(family) / "Makefile", top)
        if variant != "stock":
            patches.apply(top / "drivers/virtio", family, variant)
        row = Row("source-patch", f"Debian's {family} source, {variant}")
        yield planned_only(row, str(top), expected=expected) if expected else whole(row, top, str(top))


def instance_type(folder: Path) -> Iterator[Row]:
    """Alibaba Cloud, through the real SDK."""
    with pytest.MonkeyPatch.context() as environment:
        for module in (change, proof):
            environment.setattr(module, "EVERY_S", 0.05)
        api = ecs_server.Api()
        with ecs_server.answering(api) as url:
            ecs_server.become(environment, folder / "home", url)
            where = ("--instance", ecs_server.INSTANCE, "--region", ecs_server.REGION)
            row = Row("instance-type", "ECS instance, asked from another machine")
            plan_of(row, *ask("instance-type", *where))
            before = api.instances[ecs_server.INSTANCE].type
            code, found, said = ask("instance-type", *where, "--apply")
            row.expect(code == 0 and bool(found), f"apply ended with {code}: {said.strip()}")
            if found:
                row.apply = " ".join(found["applied"]["changes"])
                row.verify = found["applied"]["why"]
            code, _, said = ask("instance-type", "--undo", "--instance", ecs_server.INSTANCE)
            same = api.instances[ecs_server.INSTANCE].type == before
            row.expect(code == 0 and same, f"undo ended with {code}: {said.strip()}")
            row.undo = f"{before} again" if same else "differs"
            yield row
    tree = machine(folder)
    (tree / "sys/class/dmi/id/sys_vendor").write_text("QEMU\n")
    (tree / "sys/class/dmi/id/product_name").write_text("Standard PC\n")
    row = Row("instance-type", "machine of no cloud")
    yield planned_only(row, "--root", str(tree), expected="impossible")


def detach(folder: Path) -> Iterator[Row]:
    """For people: only commands."""
    tree = machine(folder)
    row = Row("detach-while-stopped", "ECS instance with a legacy disk")
    yield planned_only(row, "--root", str(tree), expected="possible")


def live(folder: Path) -> Iterator[Row]:
    """Not on a tree."""
    tree = machine(folder)
    yield refused(Row("live", "a tree: nothing runs there"), tree, "--root", str(tree), code=64)


def upgrade(folder: Path) -> Iterator[Row]:
    """Real package managers, in chroots."""
    from corpus import upgrade_proof

    tree = machine(folder)
    yield planned_only(Row("upgrade", "captured tree"), "--root", str(tree), expected="impossible")
    if why := chroots.usable():
        row = Row("upgrade", "package managers")
        row.expect(claim=False, what=why)
        yield row
        return
    for one in upgrade_proof.rows():
        yield Row("upgrade", one.system, one.plan, one.apply, one.verify, one.undo, one.wrong)


REMEDIES = (panic_policy, force_legacy, source_patch, instance_type, detach, live)


def rows(*, quick: bool) -> Iterator[Row]:
    """All of them, as soon as each is known."""
    for story in REMEDIES if quick else (*REMEDIES, upgrade):
        with tempfile.TemporaryDirectory(prefix="ejectable-table-") as name:
            os.environ["XDG_STATE_HOME"] = f"{name}/state"
            for row in story(Path(name)):
                row.plan, row.apply, row.verify = (
                    text.replace(f"{name}/", "") for text in (row.plan, row.apply, row.verify)
                )
                yield row


def main() -> int:
    """Print and write the table; 2 where something contradicts the claim."""
    parser = argparse.ArgumentParser(description="Each remedy on each kind of host.")
    parser.add_argument("--quick", action="store_true", help="without the package managers; writes nothing")
    quick = parser.parse_args().quick
    done = []
    for row in rows(quick=quick):
        print(row, flush=True)
        done.append(row)
    wrong = sum(bool(row.wrong) for row in done)
    count = f"\n{len(done)} rows; results that contradict the claim: {wrong}.\n"
    if not quick:
        TARGET.write_text(HEAD + "".join(f"{row}\n" for row in done) + count + TAIL, encoding="utf-8")
    print(count)
    return 2 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
