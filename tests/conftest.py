"""What holds for every test: the shared fixtures, Hypothesis' profiles, no skipping in CI, a clean environment."""

import os

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.support.cluster",
    "tests.support.database",
    "tests.support.engine",
    "tests.support.git_server",
    "tests.tidy.no_skips",
]

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("RECONCILER_CI") == "1" else "dev")

# The person's own set-up must change no test, and a failpoint left over from one must not reach another.
LEFT_OUT = ("GIT_", "DOCKER_", "SSH_", "RECONCILER_FAILPOINT", "NOTIFY_SOCKET", "WATCHDOG_", "KUBE")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixtures of the whole session, which come before this one, still see the engine the person chose."""
    for name in list(os.environ):
        if name.startswith(LEFT_OUT):
            monkeypatch.delenv(name)
