# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the files of credentials that the SDK would read are this user's own.

They say who asks, and may name a program to run. Nothing of what is in them is read here, or said.
"""

import os
import stat
from collections.abc import Iterator, Mapping

from ejectable.errors import Denied, Missing
from ejectable.remedies.ownership import other_writer

__all__ = ["check_files", "home_is_ours"]

# Variables that name files (alibabacloud_credentials, provider/).
FILES = ("ALIBABA_CLOUD_CREDENTIALS_FILE", "ALIBABA_CLOUD_OIDC_TOKEN_FILE")


def check_files(environment: Mapping[str, str]) -> None:
    """Raise `Denied` where a variable names a file that is not this user's or root's, or that others may write to.

    `Missing` for one that is not there.
    """
    for name in FILES:
        if path := environment.get(name):
            _check(name, path)


def home_is_ours(home: str) -> bool:
    """Whether what `aliyun configure` left in a home is read; as root, only where nobody else may write to it."""
    return os.geteuid() != 0 or not any(map(other_writer, _credentials_in(home)))


def _check(name: str, path: str) -> None:
    try:
        about = os.stat(path)  # noqa: PTH116  (the kind, the owner and the mode in one look)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "this is no path"
        raise Missing(f"The file that ${name} names cannot be looked at: {why}.", hint=f"Unset {name}.") from None
    if not stat.S_ISREG(about.st_mode):
        said: str | None = "it is no file"
    elif about.st_uid not in (0, os.geteuid()):
        said = f"it belongs to user {about.st_uid}"
    elif about.st_mode & 0o022:
        said = f"others may write to it (mode {stat.S_IMODE(about.st_mode):04o})"
    else:
        said = other_writer(path) if os.geteuid() == 0 else None
    if said:
        raise Denied(f"The file that ${name} names is not read: {said}.", hint="chown it to this user, chmod 0600.")


def _credentials_in(home: str) -> Iterator[str]:
    """What the SDK reads in a home, as far as it is there, and the home itself."""
    yield home
    for name in (".aliyun/config.json", ".alibabacloud/credentials", ".alibabacloud/credentials.ini"):
        if os.path.lexists(f"{home}/{name}"):
            yield f"{home}/{name}"
