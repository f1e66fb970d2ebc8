# SPDX-License-Identifier: GPL-2.0-or-later
"""Files are opened, made, changed and removed by one layer, which goes by descriptors; the exceptions are few.

A path is looked up anew each time it is used, and whoever owns a folder on the way decides what it leads to. So nobody
outside `ejectable.intake` opens, gives away, renames or removes by path: see `Directory` and `Root` there.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

__all__ = ["EXCEPTIONS", "LAYER", "SOURCE", "calls_by_path"]

SOURCE = Path(__file__).resolve().parent.parent / "src" / "ejectable"
LAYER = SOURCE / "intake"

BY_PATH = {
    "os": {
        "open", "chown", "lchown", "chmod", "unlink", "remove", "rename", "renames", "replace", "mkdir", "makedirs",
        "rmdir", "removedirs", "link", "symlink", "mknod", "mkfifo", "truncate", "utime",
    },
    "shutil": {"rmtree", "copy", "copy2", "copyfile", "copytree", "move", "chown"},
    "tempfile": {"mkdtemp", "mkstemp", "mktemp", "NamedTemporaryFile", "TemporaryDirectory"},
}  # fmt: skip
# Methods of pathlib.Path that no other object here has; `open` and `replace` of one argument are looked at apart.
METHODS = {
    "write_text", "write_bytes", "unlink", "mkdir", "rmdir", "chmod", "lchmod", "touch", "symlink_to", "hardlink_to",
    "rename",
}  # fmt: skip
OTHERS = {"msgspec.structs", "root", "self.root", "self._root", "situation.root", "Directory", "self._cpu"}

# File → why it still goes by path. A line goes when its file does; there is no way back.
EXCEPTIONS = {
    "__main__.py": "opens the three standard streams, which are no files of a machine",
    "cli/app.py": "puts /dev/null in place of an output that was closed",
    "confine/child.py": "puts /dev/null in place of the streams of a process that gives up its files",
    "remedies/ecs/sdk.py": "writes a library's chatter to /dev/null",
}


def calls_by_path(path: Path) -> Iterator[str]:
    """Each call in a file that goes by a path, as LINE: WHAT."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called, words = node.func, {keyword.arg for keyword in node.keywords}
        if isinstance(called, ast.Name):
            if called.id == "open":
                yield f"{node.lineno}: open()"
        elif isinstance(called, ast.Attribute) and ast.unparse(called.value) not in OTHERS:
            owner = ast.unparse(called.value)
            by_path = called.attr in BY_PATH.get(owner, ()) and not words & {"dir_fd", "src_dir_fd"}
            paths = owner not in BY_PATH and (
                (called.attr in METHODS and "into" not in words)  # `Directory.rename` from one folder into another
                or (called.attr == "replace" and len(node.args) == 1 and not words)
                or (called.attr == "open" and not isinstance(called.value, ast.Name))
            )
            if by_path or paths:
                yield f"{node.lineno}: {owner}.{called.attr}()"
