"""The row secret leaks of the threat table, on the whole program: a canary in every secret, sought in every output."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import docker
import pytest

from tests.e2e.running import Daemon, House

CANARY = "canary-7f3a91c2d4e5"
SECRETS = {name: f"{CANARY}-{name}-0123456789abcdef" for name in ("token", "hook", "password")}


@pytest.fixture
def house(tmp_path: Path, engine: str, raw: docker.APIClient) -> Iterator[House]:
    found = House(tmp_path, engine)
    secrets = tmp_path / "secrets" / found.environment
    secrets.mkdir(parents=True)
    for place, name in ((tmp_path, "token"), (tmp_path, "hook"), (secrets, "password")):
        (place / name).write_text(SECRETS[name])
        (place / name).chmod(0o600)
    text = found.settings.read_text().replace(':0"}', ':0", tokenFile: token}')
    text = text.replace("poll: 30s", "poll: 30s, webhook: {forge: github, secretFile: hook}")
    found.settings.write_text(text + "secrets: secrets\n")
    yield found
    found.clean(raw)


def asked(daemon: Daemon, path: str) -> str:
    port = daemon.log("ready")["port"]
    headers = {"Authorization": f"Bearer {SECRETS['token']}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def test_no_canary_leaves_the_program(house: House, hello: Mapping[str, str], raw: docker.APIClient) -> None:
    """One version that works; one whose program says its secret aloud and fails: its last words are recorded."""
    uses = [{"secret": "password", "env": "VERSION"}, {"secret": "password", "file": "/run/secrets/password"}]
    with house.daemon() as daemon:
        revision = house.release(hello["1.0"], secrets=uses)
        daemon.synced(revision)
        daemon_words = Path(f"/proc/{daemon.process.pid}/cmdline").read_bytes()
        # It says a line, fails its checks, and ends: however fast or slow all is, it never becomes healthy.
        ill = {"LOG_LINES": "1", "UNHEALTHY": "1", "EXIT_AFTER_MS": "300"}
        house.release(hello["2.0"], secrets=uses, env=ill)
        daemon.log("reconciled", lambda line: "Quarantined" in json.dumps(line.get("services", {})))
        answers = [
            asked(daemon, path)
            for path in ("/api/v1/environments", "/api/v1/records?limit=1000", "/metrics", "/api/v1/openapi.json")
        ]
        assert daemon.stop() == 0
        logs = json.dumps(daemon.logs)
    assert '"RolloutFailed"' in answers[1]
    assert "[redacted]" in answers[1], "the failed program's own words are there, without the secret"
    told = [house.command(*words.split()) for words in ("audit list --json", "audit export", "status --json", "plan")]
    places = {
        "log": logs,
        "arguments": daemon_words.decode(),
        "API": "".join(answers),
        "commands": "".join(done.stdout + done.stderr for done in told),
        "data": "".join(
            file.read_bytes().decode("latin-1") for file in (house.root / "data").rglob("*") if file.is_file()
        ),
        "names": json.dumps([c["Names"] + list(c["Labels"].values()) for c in raw.containers(all=True)]),
    }
    assert [place for place, text in places.items() if CANARY in text] == []
