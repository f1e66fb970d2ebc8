# SPDX-License-Identifier: GPL-2.0-or-later
"""A git tree that has the upstream fix among its objects is told how to take it; git touches and runs nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from corpus.patches import apply
from corpus.trees import source as kernel_source
from ejectable import host
from ejectable.advisories import choose, cve_2024_42134
from ejectable.model import Remedy
from ejectable.remedies import Request, Situation, execute

pytestmark = pytest.mark.kernels
COMMON = "drivers/virtio/virtio_pci_common.c"


def git(top: Path, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, "-C", top, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(top: Path, name: str) -> None:
    shutil.rmtree(top / "drivers", ignore_errors=True)
    (top / "drivers/virtio").mkdir(parents=True)
    for file in (kernel_source("6.1") / "drivers/virtio").glob("virtio_pci_*.[ch]"):
        shutil.copy(file, top / "drivers/virtio")
    apply(top / "drivers/virtio", "6.1", name)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose branch `main` is affected, and whose remote has a fix. The true commit's name cannot be
    forged, so for once the facts name this one.
    """
    upstream, top = tmp_path / "upstream", tmp_path / "linux"
    upstream.mkdir()
    git(upstream, "init", "-q")
    for name in ("affected", "fixed"):
        write(upstream, name)
        git(upstream, "add", ".")
        git(upstream, "commit", "-q", "-m", name)
    git(tmp_path, "clone", "-q", str(upstream), str(top))
    fix = git(top, "rev-parse", "HEAD")
    git(top, "reset", "-q", "--hard", "HEAD~1")
    facts = cve_2024_42134.ADVISORY.facts
    commits = tuple(msgspec.structs.replace(c, id=fix) if c.role == "fixed" else c for c in facts.commits)
    monkeypatch.setattr(cve_2024_42134.ADVISORY, "facts", msgspec.structs.replace(facts, commits=commits))
    return top


def planned(top: Path) -> Remedy:
    situation = Situation(host.Root(), choose(()), cache=False, offline=True)
    (line,) = execute.plan(situation, Request(target=str(top)), ["source-patch"])
    return line


def snapshot(top: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in sorted(top.rglob("*"))}


def test_the_cherry_pick_is_offered_and_does_what_it_says(tree: Path) -> None:
    before = snapshot(tree)
    line = planned(tree)
    assert snapshot(tree) == before
    fix = git(tree, "rev-parse", "origin/main")
    assert line.commands[1] == f"git -C {tree} cherry-pick -n {fix}"
    assert any("is on origin/main; it applies here, and repairs it" in detail for detail in line.details)
    subprocess.run(line.commands[1].split(), check=True, capture_output=True)
    assert planned(tree).state == "done"


def test_a_fix_that_does_not_apply_is_named_and_not_offered(tree: Path) -> None:
    text = (tree / COMMON).read_text()
    (tree / COMMON).write_text(
        text.replace("if (vp_dev->is_avq(vdev, vq->index))", "if (a || vp_dev->is_avq(vdev, 1))")
    )
    line = planned(tree)
    assert line.state == "possible"
    assert len(line.commands) == 1
    assert any("does not apply here as it is" in detail for detail in line.details)


def test_a_repository_without_it_is_asked_nothing_more(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    line = planned(tree)
    assert len(line.commands) == 1
    assert not any("upstream fix" in detail for detail in line.details)


def test_nothing_that_the_repository_configures_is_run(tree: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho run >> {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    for setting in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "diff.external",
        "diff.x.textconv",
        "diff.x.command",
        "filter.x.clean",
        "filter.x.smudge",
        "credential.helper",
    ):
        git(tree, "config", setting, str(trap))
    (tree / ".gitattributes").write_text("* filter=x diff=x\n")
    git(tree, "config", "core.hooksPath", str(tmp_path))
    git(tree, "config", "extensions.partialClone", "origin")
    git(tree, "config", "remote.origin.promisor", "true")
    git(tree, "config", "remote.origin.url", f"ext::{trap}")
    git(tree, "config", "protocol.ext.allow", "always")
    before = (tmp_path / "sprung").exists()
    line = planned(tree)
    assert not before
    assert not (tmp_path / "sprung").exists()
    assert line.state == "possible"


def test_another_repository_in_the_environment_is_not_asked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")
    assert len(planned(tree).commands) == 2


def test_without_git_the_patch_is_still_there(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ejectable.remedies.cherry_pick.which", lambda _: None)
    line = planned(tree)
    assert line.state == "possible"
    assert line.diff
    assert os.path.basename(line.commands[0].split()[0]) == "ejectable"  # noqa: PTH119
