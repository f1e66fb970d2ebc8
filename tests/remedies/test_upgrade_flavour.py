# SPDX-License-Identifier: GPL-2.0-or-later
"""The flavour of a kernel is what an upgrade must not change; releases and package names tell it."""

import pytest

from ejectable.host.installed import natural
from ejectable.remedies.upgrade.flavour import concrete, flavour, newer


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.1.0-50-cloud-amd64", "cloud-amd64"),
        ("6.12.117+deb12-amd64", "amd64"),
        ("6.12.117+deb12+1-rt-arm64", "rt-arm64"),
        ("6.1.0-0.deb11.21-cloud-amd64", "cloud-amd64"),
        ("6.8.0-31-generic", "generic"),
        ("6.8.0-31-generic-64k", "generic-64k"),
        ("6.8.0-1009-aws", "aws"),
        ("6.8.1-1006-realtime", "realtime"),
        ("6.8.4-2-pve", "pve"),
        ("6.10-rc3-amd64", "amd64"),
        ("6.4.0-150600.23.25-default", "default"),
        # Nothing there says "flavour": their packages do.
        ("6.8.5-301.fc40.x86_64", None),
        ("5.14.0-427.13.1.el9_4.x86_64", None),
        ("6.9.0", None),
        ("", None),
    ],
)
def test_a_release_tells_its_flavour(release: str, expected: str | None) -> None:
    assert flavour(release) == expected


@pytest.mark.parametrize(
    ("package", "release"),
    [
        ("linux-image-6.1.0-50-cloud-amd64", "6.1.0-50-cloud-amd64"),
        ("linux-image-unsigned-6.8.0-31-generic", "6.8.0-31-generic"),
        ("linux-image-6.12.117+deb12-amd64-unsigned", "6.12.117+deb12-amd64"),
        ("proxmox-kernel-6.8.4-2-pve-signed", "6.8.4-2-pve"),
        ("linux-image-cloud-amd64", None),
        ("linux-image-generic-hwe-22.04", None),
        ("linux-image-6.12-cloud-amd64", None),
        ("linux-image-6.10-rc3-amd64", "6.10-rc3-amd64"),
        ("proxmox-kernel-6.8", None),
        ("linux-modules-6.8.0-31-generic", None),
    ],
)
def test_a_package_of_one_kernel_is_told_from_those_that_lead_to_it(package: str, release: str | None) -> None:
    assert concrete(package) == release


def test_numbers_in_releases_compare_as_numbers() -> None:
    assert newer("6.8.0-31-generic", than="6.8.0-9-generic")
    assert newer("6.12.1+deb12-amd64", than="6.1.0-50-amd64")
    assert not newer("6.1.0-50-amd64", than="6.1.0-50-amd64")
    assert sorted(["6.10.0", "6.9.0", "6.9.10"], key=natural) == ["6.9.0", "6.9.10", "6.10.0"]
