# SPDX-License-Identifier: GPL-2.0-or-later
"""A package archive over HTTP, which can break off in the middle of a package as a bad line does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["PackageServer"]

PACKAGES = (".deb", ".rpm")


class PackageServer:
    """Serves a folder on this machine. `cut_after` is the number of bytes after which a package breaks off."""

    def __init__(self, folder: Path) -> None:
        self.cut_after: int | None = None
        self.asked: list[str] = []
        handler = partial(_Handler, self, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @classmethod
    @contextmanager
    def serving(cls, folder: Path) -> Iterator["PackageServer"]:
        """The server, as long as the block lasts."""
        one = cls(folder)
        thread = threading.Thread(target=one._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield one
        finally:
            one._server.shutdown()
            one._server.server_close()
            thread.join()

    @property
    def packages_asked(self) -> list[str]:
        """The packages that somebody wanted to have."""
        return [path for path in self.asked if path.endswith(PACKAGES)]


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, owner: PackageServer, *arguments: Any, **options: Any) -> None:
        self._owner = owner
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        """Send the file, or its beginning."""
        self._owner.asked.append(self.path)
        path = Path(self.translate_path(self.path))
        if self._owner.cut_after is None or not path.name.endswith(PACKAGES) or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self._owner.cut_after])
        self.close_connection = True

    def log_message(self, *_arguments: Any) -> None:
        """Be quiet."""
