# SPDX-License-Identifier: GPL-2.0-or-later
"""What several of the remedies' tests start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ejectable.remedies import state
from ejectable.remedies.ecs import change, proof, service
from tests.remedies.ecs_server import Api, answering, become


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the records of changes are: not this machine's own folder. Root's does not hang on the environment."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setattr(state, "SYSTEM", folder / "ejectable")
    monkeypatch.setattr("ejectable.remedies.upgrade.folders.SYSTEM", folder / "cache")
    monkeypatch.setattr("ejectable.remedies.audit.syslog.syslog", lambda *_: None)
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setenv("TEST_STATE", str(folder / "ejectable"))
    return folder / "ejectable"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """The ECS API, answering here; nobody waits for long."""
    one = Api()
    with answering(one) as url:
        become(monkeypatch, tmp_path / "home", url)
        for module in (change, proof):
            monkeypatch.setattr(module, "EVERY_S", 0.01)
        monkeypatch.setattr(service, "FIRST_PAUSE_S", 0.01)
        yield one
