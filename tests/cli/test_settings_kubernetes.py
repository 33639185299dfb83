"""`init` and `settings check` know Kubernetes, a journal in PostgreSQL, and shards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconciler.settings import KubernetesSettings, read
from tests.cli.installation import call


def with_comments_taken_away(text: str, *beginnings: str) -> str:
    """The template with the commented blocks that begin so switched on."""
    lines, on = [], False
    for line in text.splitlines():
        on = line in beginnings or (on and re.match(r"  #   ", line) is not None)
        lines.append(line.replace("# ", "", 1) if on else line)
    return "\n".join(lines) + "\n"


def test_the_commented_lines_that_init_writes_are_right(tmp_path: Path) -> None:
    assert call("init", tmp_path).exit_code == 0
    settings = tmp_path / "reconciler.yaml"
    settings.write_text(with_comments_taken_away(settings.read_text(), "  # cluster:", "  # production:"))
    found = read(settings)
    assert found.runtimes["cluster"] == KubernetesSettings("cluster", tmp_path / "kubeconfig", "production")
    assert found.environments["production"].namespace == "production"
    assert found.environments["production"].allow.gateway
    missing = call("settings", "check", "--settings", settings)
    assert missing.exit_code == 1
    assert f"{tmp_path}/kubeconfig: cannot be read: No such file" in missing.stderr
    (tmp_path / "kubeconfig").write_text("apiVersion: v1\n")
    result = call("settings", "check", "--settings", settings)
    assert result.exit_code == 0, result.output
    assert f"engine cluster: context production of {tmp_path}/kubeconfig" in result.stdout
    assert "environment production: fleet/environments/production at main on cluster, namespace production" in (
        result.stdout
    )
    (staging,) = [line for line in result.stdout.splitlines() if line.startswith("environment staging")]
    assert "namespace" not in staging


REPLICAS = """\
data: data
journal: postgresql://rec@db.test/rec
journalPasswordFile: pw
journalTls: {ca: ca.pem, cert: cert.pem, key: key.pem}
repositories: {fleet: {url: "https://git.test/fleet.git"}}
runtimes: {here: {kubernetes: {inCluster: true}}}
leader: {runtime: here}
shard: {index: 1, count: 2}
environments:
  one: {repository: fleet, runtime: here, shard: 1}
  two: {repository: fleet, runtime: here, shard: 0}
"""


@pytest.mark.parametrize("missing", ["pw", "ca.pem", "cert.pem", "key.pem", ""])
def test_settings_check_opens_what_a_journal_needs_and_tells_the_shard(tmp_path: Path, missing: str) -> None:
    settings = tmp_path / "reconciler.yaml"
    settings.write_text(REPLICAS)
    for name in {"pw", "ca.pem", "cert.pem", "key.pem"} - {missing}:
        (tmp_path / name).write_text("x")
    result = call("settings", "check", "--settings", settings)
    assert result.exit_code == (1 if missing else 0), result.output
    if missing:
        assert f"{tmp_path}/{missing}: cannot be read" in result.stderr
    else:
        assert "engine here: the cluster that Reconciler runs in" in result.stdout
        assert "shard 1 of 2: one" in result.stdout
        assert "environment one:" in result.stdout
        assert "environment two:" not in result.stdout
