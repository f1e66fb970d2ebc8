# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments of defects beside the first, on Debian's own kernels: the word is that of the kernel's changelog."""

import pytest

from corpus.archive import fetch
from ejectable import judge_kernels

pytestmark = pytest.mark.kernels

# What the changelogs of the packages and the kernel's CVE records say. 6.12.43 is of the backports of bookworm.
EXPECTED = {
    "linux-image-6.12.43+deb12-cloud-amd64": {
        "CVE-2025-68756": "affected",  # fixed in 6.12.63
        "CVE-2026-64326": "affected",  # fixed in 6.12.96
        "xen-blkfront-unplug": "affected",  # fixed in 6.12.117
        "CVE-2026-43147": "fixed",  # came with 6.12.54: not there yet
        "CVE-2024-58093": "fixed",
        "CVE-2024-53194": "fixed",
        "CVE-2022-50636": "fixed",
        "CVE-2024-42294": "fixed",
        "CVE-2024-53240": "fixed",
        "CVE-2024-26698": "fixed",
        "pciehp-abba": "fixed",
    },
    "linux-image-6.12.117+deb12-cloud-amd64": {
        "CVE-2025-68756": "fixed",
        "CVE-2026-64326": "fixed",
        "xen-blkfront-unplug": "fixed",
    },
    "linux-image-6.1.0-50-cloud-amd64": {
        "CVE-2025-68756": "not_affected",  # came with 6.2
        "CVE-2026-64326": "not_affected",  # came with 6.6
        "CVE-2024-58093": "fixed",
        "CVE-2024-53194": "fixed",
        "xen-blkfront-unplug": "affected",
    },
    "linux-image-5.10.0-30-cloud-amd64": {
        "CVE-2024-58093": "affected",  # came with 5.10.188, fixed in 5.10.236
        "CVE-2024-53194": "affected",
        "CVE-2025-68756": "not_affected",
    },
}
ELSEWHERE = ("6.12.43", "5.10.0")


@pytest.mark.parametrize("package", EXPECTED)
def test_a_kernel_of_debians_has_the_word_that_its_changelog_gives_it(package: str) -> None:
    path = fetch(package, everywhere=any(version in package for version in ELSEWHERE))
    wanted = EXPECTED[package]
    (kernel,) = judge_kernels(path, advisories=tuple(wanted)).kernels
    assert {finding.advisory: str(finding.status) for finding in kernel.findings} == wanted
