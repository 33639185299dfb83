"""`validate --kubernetes` checks the environments that are named as Kubernetes runs them, all others as Docker does."""

from __future__ import annotations

import pytest

from tests.cli.installation import SERVICE, Installation, call

CANARY = f"{SERVICE}  rollout: {{strategy: canary, steps: [{{weight: 5}}]}}\n"
LIFETIME = f"{SERVICE}  lifetime: 1h\n"


@pytest.mark.parametrize(
    ("service", "options", "code", "said"),
    [
        (CANARY, (), 1, "canary moves traffic at the proxy"),
        (CANARY, ("--kubernetes", "staging"), 0, ""),
        (CANARY, ("--kubernetes", "*"), 0, ""),
        (LIFETIME, (), 0, ""),
        (LIFETIME, ("--kubernetes", "sta*"), 1, "lifetime is not available on Kubernetes"),
        (f"{SERVICE}  traffic: {{port: 80}}\n", ("--kubernetes", "staging"), 0, "the operator can set gateway"),
        (SERVICE, ("--kubernetes", "staging", "--kubernetes", "stagign"), 1, "there is no environment stagign"),
    ],
)
def test_an_environment_on_kubernetes(
    installation: Installation, service: str, options: tuple[str, ...], code: int, said: str
) -> None:
    installation.write("web.yaml", service)
    result = call("validate", *options, installation.fleet)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output


def test_the_others_are_checked_as_on_docker_and_a_file_by_itself(installation: Installation) -> None:
    path = installation.write("web.yaml", LIFETIME)
    other = installation.fleet / "environments" / "production"
    other.mkdir()
    (other / "environment.yaml").write_text(
        (path.parent / "environment.yaml").read_text().replace("staging", "production")
    )
    (other / "web.yaml").write_text(LIFETIME)
    result = call("validate", "--kubernetes", "production", installation.fleet)
    assert result.exit_code == 1
    assert "production/web.yaml" in result.stderr
    assert "staging/web.yaml" not in result.stderr
    assert call("validate", "--kubernetes", "production", path).exit_code == 0
    assert call("validate", "--kubernetes", "staging", path).exit_code == 1
    environment = path.parent / "environment.yaml"
    assert call("validate", "--kubernetes", "staging", environment).exit_code == 0
