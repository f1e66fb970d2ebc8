# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata of an archive that lies: names like options, paths elsewhere, control characters, no end, no sense."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ejectable import host
from ejectable.errors import BadInput, EjectableError, Missing
from ejectable.intake import Directory
from ejectable.remedies.commands import Finished
from ejectable.remedies.upgrade import apt as apt_module
from ejectable.remedies.upgrade import apt_lists, dnf, zypper
from ejectable.remedies.upgrade.apt import Apt
from ejectable.remedies.upgrade.backend import Offer, Owner, Package

RELEASE, NEWER = "6.1.0-50-cloud-amd64", "6.1.0-60-cloud-amd64"
IMAGE = f"linux-image-{NEWER}"
OPTIONS = ("-oDebug::pkgAcquire=1", "--config-file=/tmp/owned", "-o", "-cx")
NAMES = (
    *OPTIONS,
    "../../../etc/cron.d/x",
    "a/b",
    "a\x1b[2J",
    "a b",
    "\u202egnp",
    "$(touch /tmp/owned)",
    "x" * 5000,
    "",
)
Answers = dict[str, str]


def answering(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> list[list[str]]:
    """Package managers that say this; what they were asked with."""
    asked: list[list[str]] = []

    def run(argv: list[str], **_: object) -> Finished:
        asked.append(list(argv))
        return Finished(tuple(argv), 0, next((out for word, out in answers.items() if word in argv), ""), "")

    for module in (apt_module, apt_lists, dnf, zypper):
        monkeypatch.setattr(module, "run", run)
    return asked


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Apt]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "root").mkdir()
    return lambda: Apt(host.Root(tmp_path / "root"), offline=True)


def record(name: str = IMAGE, version: str = "6.1.200-1", **fields: str) -> str:
    given = {"Package": name, "Version": version, "Architecture": "amd64", "SHA256": "ab", "Size": "1000"} | fields
    return "".join(f"{key}: {value}\n" for key, value in given.items()) + "\n"


def policy(name: str = IMAGE, version: str = "6.1.200-1") -> str:
    return f"{name}:\n  Installed: (none)\n  Candidate: {version}\n  Version table:\n     {version} 500\n"


def offered(apt: Apt) -> Offer:
    owner = Owner(f"linux-image-{RELEASE}", "6.1.100-1", RELEASE, "cloud-amd64", (), (f"linux-image-{RELEASE}",))
    return apt.offer(owner)


def words_of(asked: list[list[str]], *, but: tuple[str, ...] = ()) -> set[str]:
    """What package managers were given beside the options that are ours."""
    ours = ("-o", "-c", "-q", "-qq", "-y", "--cacheonly", *but)
    found = set()
    for argv in asked:
        words = list(argv)
        while words:
            word = words.pop(0)
            if word in ("-o", "-c") and words and words[0].startswith(("Dir::", "APT::", "Dpkg::", "/")):
                words.pop(0)
            elif word not in ours:
                found.add(word)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_dependency_is_never_an_option_of_apt(
    lists: Callable[[], Apt], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shown = record(Depends=f"{name}={NEWER}, {name}{NEWER}, {name}-{NEWER}, linux-modules-{NEWER}")
    asked = answering(monkeypatch, {"pkgnames": f"{IMAGE}\n{name}\n", "policy": policy(), "show": shown})
    offer = offered(lists())
    assert offer.image.name == IMAGE
    told = words_of([argv for argv in asked if argv[0] != "dpkg-query"])  # which asks for what is installed here
    assert not [word for word in told if word.startswith("-") or "/" in word or not word.isascii()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["Package", "Version", "Architecture"])
def test_a_record_that_names_no_package_is_none(
    lists: Callable[[], Apt], monkeypatch: pytest.MonkeyPatch, field: str, name: str
) -> None:
    version = name if field == "Version" else "6.1.200-1"
    answers = {"pkgnames": IMAGE, "policy": policy(version=version), "show": record(**{field: name})}
    answering(monkeypatch, answers)
    with pytest.raises(Missing, match="does not offer"):
        offered(lists())


@pytest.mark.parametrize("size", ["-1", "0x10", "1e9", "9" * 400, "", "nine", "\u0661", "1\n2"])
def test_a_size_that_makes_no_sense_is_not_known(
    lists: Callable[[], Apt], monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    fields = {"Size": size, "Installed-Size": size, "SHA256": size, "Filename": "../../../../etc/shadow"}
    answering(monkeypatch, {"pkgnames": IMAGE, "policy": policy(), "show": record(**fields)})
    image = offered(lists()).image
    assert image.size in (None, 1)
    assert image.installed_size in (None, 1024)


def test_lists_without_end_are_read_in_time_and_ask_for_little(
    lists: Callable[[], Apt], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = "\n".join(f"linux-image-6.1.0-{at}-cloud-amd64" for at in range(60, 60_000))
    depends = ", ".join(f"linux-modules-{at}-{NEWER}" for at in range(100_000))
    newest = "linux-image-6.1.0-59999-cloud-amd64"
    shown = record(newest, Depends=depends) + "".join(record(f"linux-image-{at}") for at in range(20_000))
    asked = answering(monkeypatch, {"pkgnames": names, "policy": policy(newest) * 2000, "show": shown})
    begun = time.process_time()
    assert offered(lists()).image.name == newest
    assert time.process_time() - begun < 20
    assert max(sum(len(word) + 1 for word in argv) for argv in asked) < 100_000, "ARG_MAX is 128 KiB for one word"


@pytest.mark.parametrize("garbage", ["\0" * 1000, ":" * 10_000, " x\n" * 1000, "Package\n:\n\n" * 1000, "\x1b]0;x\x07"])
def test_garbage_is_no_kernel(lists: Callable[[], Apt], monkeypatch: pytest.MonkeyPatch, garbage: str) -> None:
    answering(monkeypatch, {"pkgnames": garbage, "policy": garbage, "show": garbage})
    with pytest.raises(EjectableError):
        offered(lists())


@pytest.mark.parametrize("name", NAMES)
def test_what_dnf_is_told_is_never_an_option_or_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    good = "kernel-core|0|6.9.9|300.fc40|x86_64|1000|2000|1|ab"
    rows = [
        good,
        f"{name}|0|6.9.9|300.fc40|x86_64|1|1|1|ab",
        f"kernel-core|0|{name}|1|x86_64|1|1|1|ab",
        f"kernel-core|0|6.9.9|1|{name}|1|1|1|ab",
        f"kernel-core|0|6.9.9|300.fc40|x86_64|{'9' * 5000}|-1|x|y",
        "|" * 100_000,
    ]
    asked = answering(monkeypatch, {"repoquery": "\n".join(rows)})
    one = dnf.Dnf(host.Root(tmp_path), offline=True)
    owner = Owner("kernel-core", "0:6.8.5-301.fc40", "6.8.5-301.fc40.x86_64", None, siblings=("kernel-core",))
    offer = one.offer(owner)
    assert offer.image.label.startswith("kernel-core")
    for package in (offer.image, *offer.parts, *offer.wanted):
        assert (package.name, package.arch) == ("kernel-core", "x86_64")
    assert all(word.isascii() and "/" not in word for argv in asked for word in argv if "queryformat" not in word)


def test_a_package_that_apts_own_user_left_as_a_link_is_not_taken(tmp_path: Path) -> None:
    """The process that downloads is apt's unprivileged one, and talks to strangers."""
    package = Package("linux-image-x", "1:2", "amd64")
    secret = tmp_path / "secret"
    secret.write_text("root's")
    name = "linux-image-x_1%3a2_amd64.deb"
    with Directory.make(tmp_path / "in") as aside, Directory.make(tmp_path / "out") as here:
        with pytest.raises(Missing, match="is not there"):
            apt_module._taken(aside, here, package)
        (tmp_path / "in" / name).symlink_to(secret)
        with pytest.raises(BadInput):
            apt_module._taken(aside, here, package)
        (tmp_path / "out" / name).unlink()
        os.link(secret, tmp_path / "in" / name)
        with pytest.raises(BadInput, match="several names"):
            apt_module._taken(aside, here, package)
        (tmp_path / "out" / name).unlink()
        (tmp_path / "in" / name).write_text("a package")
        apt_module._taken(aside, here, package)
        assert (tmp_path / "out" / name).read_text() == "a package"
