# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the house hold for every file: licence line, docstring, exports, size, layers."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.file_layer import EXCEPTIONS, LAYER, SOURCE, calls_by_path

__all__: list[str] = []

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "corpus", "bench", "fuzz", "demo")
PYTHON = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGE = sorted((ROOT / "src").rglob("*.py"))
SPDX = "SPDX-License-Identifier: GPL-2.0-or-later"
# Spelled so that this file does not hold them.
MARKERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
MOST_LINES = 500


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _tracked(*suffixes: str) -> list[Path]:
    """The files that git knows; an export without git has no others."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = done.stdout.split("\n") if done.returncode == 0 else []
    files = [ROOT / name for name in names if name] or [p for f in FOLDERS for p in (ROOT / f).rglob("*")]
    return [path for path in files if path.suffix in suffixes and path.is_file()]


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_a_file_says_its_licence_its_purpose_and_its_exports(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0] if text else ""
    if first.startswith("#!"):
        first = text.splitlines()[1]
    assert first == f"# {SPDX}", "the first line is the SPDX line"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "the module has a docstring"
    exports = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(node).partition("=")[0]
    ]
    defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
    if path in PACKAGE and defines:
        assert len(exports) == 1, "a module that defines something says what it exports"
    for export in exports:
        names = ast.literal_eval(export) if export is not None else []
        assert len(set(names)) == len(names)
        # ruff's order (RUF022): constants, then classes, then the rest.
        assert list(names) == sorted(names, key=lambda n: (0 if n.isupper() else 1 if n[:1].isupper() else 2, n))


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_LINES


@pytest.mark.parametrize("module", [_module(path) for path in PACKAGE if path.name != "__main__.py"])
def test_every_exported_name_exists(module: str) -> None:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # The extras may be absent (lab, cloud); what is ours may not.
        if (error.name or "ejectable").startswith("ejectable"):
            raise
        pytest.skip(f"{module} needs {error.name}, of an extra")
    for name in getattr(found, "__all__", ()):
        assert hasattr(found, name), f"{module}.__all__ names {name}, which does not exist"


def test_no_file_leaves_work_behind_in_a_comment() -> None:
    found = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in _tracked(".py", ".c", ".h", ".sh", ".toml", ".md", ".json")
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if MARKERS.search(line)
    ]
    assert not found, "\n".join(found)


def test_c_and_shell_files_say_their_licence() -> None:
    without = [
        _name(path)
        for path in _tracked(".c", ".h", ".sh")
        if SPDX not in "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:3])
    ]
    assert not without


def test_arrows_point_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_terminal_writes_to_the_streams() -> None:
    # One gate: whatever is shown passes `line_for_terminal`. Programs of their own speak for themselves.
    allowed = {"cli/terminal.py", "cli/app.py", "__main__.py"}
    writes = re.compile(r"sys\.(?:stdout|stderr)\.(?:buffer\.)?write|(?<![\w.])print\(|click\.s?echo")
    found = {str(path.relative_to(ROOT / "src" / "ejectable")) for path in PACKAGE if writes.search(path.read_text())}
    assert found - allowed == set()


def test_start_up_imports_nothing_heavy() -> None:
    code = (
        "import sys; import ejectable.cli.app, ejectable.cli.check, ejectable.cli.kernel; "
        "print(*sorted(set(sys.modules) & {'rich', 'unicorn', 'capstone', 'elftools', 'zstandard', 'asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_only_the_file_layer_goes_by_path() -> None:
    found: list[str] = []
    clean = set(EXCEPTIONS)
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        calls = [] if path.is_relative_to(LAYER) else list(calls_by_path(path))
        if name not in EXCEPTIONS:
            found += [f"{name}:{call}" for call in calls]
        elif calls:
            clean.discard(name)
    assert not found, "use Directory or Root of ejectable.intake:\n" + "\n".join(found)
    assert not clean, f"these go by path no longer, or are gone: take them off the list: {sorted(clean)}"


@pytest.mark.parametrize(
    "line",
    [
        "os.open(p, 0)", "os.chown(p, 0, 0)", "shutil.rmtree(p)", "p.unlink()", "(a / b).write_bytes(c)", "open(p)",
        "p.replace(q)", "Path(p).open()", "tempfile.mkdtemp()",
    ],
)  # fmt: skip
def test_the_search_sees_each_way_by_path(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.py").write_text(line)
    assert list(calls_by_path(tmp_path / "x.py"))


@pytest.mark.parametrize(
    "line", ["os.open(p, 0, dir_fd=f)", "text.replace(a, b)", "msgspec.structs.replace(x, y=1)", "root.open(p)"]
)
def test_the_search_lets_go_what_goes_by_descriptors(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.py").write_text(line)
    assert not list(calls_by_path(tmp_path / "x.py"))
