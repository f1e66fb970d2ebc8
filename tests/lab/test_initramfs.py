# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs that we write is one that `cpio` reads, and the same every time."""

import shutil
import subprocess
from pathlib import Path

import pytest

from ejectable.lab.initramfs import Initramfs


def sample() -> Initramfs:
    root = Initramfs()
    root.file("init", b"#!/bin/sh\n", executable=True)
    root.link("bin/sh", "busybox")
    root.file("modules/deep/er/a.ko", b"x" * 5)
    root.device("dev/console", 5, 1)
    root.folder("proc")
    return root


def test_the_same_content_gives_the_same_bytes() -> None:
    assert sample().image == sample().image


def test_a_record_is_what_the_format_says() -> None:
    root = Initramfs()
    root.file("a", b"hello")
    image = root.image
    assert image.startswith(b"070701" + b"00000001" + b"000081a4")
    assert image[110:112] == b"a\0"
    assert image[112:117] == b"hello"
    assert image[120:126] == b"070701"
    assert len(image) % 512 == 0


def test_folders_come_before_what_is_in_them_and_once() -> None:
    root = Initramfs()
    root.files({"a/b/one": b"1", "a/b/two": b"2"})
    names = [name for name in (b"a\0", b"a/b\0", b"a/b/one\0") if name in root.image]
    positions = [root.image.index(name) for name in names]
    assert positions == sorted(positions)
    assert root.image.count(b"a/b\0") == 1


def test_cpio_unpacks_it_as_it_was_meant(tmp_path: Path) -> None:
    if not shutil.which("cpio"):
        pytest.skip("cpio is not installed (apt-get install cpio): no reference to compare with")
    listing = subprocess.run(["cpio", "-tv"], input=sample().image, capture_output=True, check=True)
    lines = listing.stdout.decode().splitlines()
    assert any(line.startswith("-rwxr-xr-x") and line.endswith(" init") for line in lines)
    assert any(line.startswith("crw-------") and "5,   1" in line for line in lines)
    assert any(line.endswith("bin/sh -> busybox") for line in lines)
    assert any(line.startswith("drwxr-xr-x") and line.endswith(" proc") for line in lines)
