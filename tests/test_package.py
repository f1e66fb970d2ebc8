# SPDX-License-Identifier: GPL-2.0-or-later
"""What is shipped is whole: data beside the code, the manual page, completion; and it starts outside of a checkout."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from ejectable.report import document

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "ejectable"
SHARED = (
    "share/man/man1/ejectable.1",
    "share/bash-completion/completions/ejectable",
    "share/zsh/site-functions/_ejectable",
    "share/fish/vendor_completions.d/ejectable.fish",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and a source archive, built from what is here."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_all_that_lies_beside_the_code(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    beside = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert beside
    missing = {str(Path("ejectable") / path.relative_to(PACKAGE)) for path in beside} - held
    assert not missing
    for wanted in ("py.typed", "lab/init.sh", "advisories/cve_2024_42134/facts.toml"):
        assert f"ejectable/{wanted}" in held
    assert all(any(name.endswith(f".data/data/{shared}") for name in held) for shared in SHARED)
    assert not any(name.startswith(("tests/", "corpus/")) for name in held)


def test_the_source_archive_can_be_tested(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tops = {name.split("/")[1] for name in tar.getnames() if "/" in name}
    wanted = {"src", "tests", "corpus", "bench", "fuzz", "docs", "requirements", "scripts", "completions", "Makefile"}
    assert wanted <= tops
    assert not tops & {".venv", ".git", "dist", ".cache"}


def test_what_was_installed_starts_and_finds_its_data(built: Path, tmp_path: Path) -> None:
    """In an environment of its own; only the libraries are borrowed, so that nothing is downloaded."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env/bin/python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    libraries = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # A path file would bring the checkout's own editable install along: only what is a library is linked.
    for library in libraries.iterdir():
        there = Path(own.stdout.strip()) / library.name
        if not library.name.startswith(("ejectable", "_ejectable", "__editable__")) and not there.exists():
            there.symlink_to(library)
    program = str(tmp_path / "env/bin/ejectable")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert version.stdout.startswith("ejectable ")
    schema = subprocess.run([program, "schema", "check"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert schema.stdout == document.schema("check")
    where = subprocess.run(
        [str(python), "-c", "import ejectable; print(ejectable.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert where.stdout.startswith(str(tmp_path))
    assert all((tmp_path / "env" / shared).is_file() for shared in SHARED)


def test_the_manual_page_is_that_of_the_commands() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "man"))["page"]()
    assert (ROOT / "docs" / "ejectable.1").read_text(encoding="utf-8") == page, "run `make man`"


def test_bash_completes_commands_options_values_and_leaves_files_to_the_shell() -> None:
    script = ROOT / "completions" / "ejectable.bash"
    bash = shutil.which("bash")
    assert bash

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("ejectable", *words))
        code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
        code += "how=$(complete -p ejectable); how=${how##*-F }; ${how% *} ejectable 2>/dev/null; "
        code += "printf '%s\\n' \"${COMPREPLY[@]}\""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            [bash, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
        )
        return done.stdout.split()

    assert complete("ch") == ["check"]
    assert complete("check", "--ro") == ["--root"]
    assert complete("check", "--format", "") == ["text", "json"]
    assert complete("kernel", "/boot/vml") == []


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
    ],
)
def test_no_document_links_to_what_is_not_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    missing = [link for link in links if not ((ROOT / document).parent / link).exists()]
    assert not missing
