"""`proxy config` prints what the proxies need for what Git declares, and says where there is no proxy."""

from tests.cli.installation import SERVICE, Installation

ROUTED = (
    SERVICE
    + """\
  ports: [{name: http, container: 8080}]
  health: {http: {port: http}}
  traffic: {port: http, hosts: [shop.test]}
"""
)


def fronted(installation: Installation, proxy: str) -> Installation:
    installation.write("web.yaml", ROUTED)
    installation.commit()
    text = installation.settings.read_text()
    installation.settings.write_text(text.replace("runtime: local}", f"runtime: local, proxy: {proxy}}}"))
    return installation


def test_the_whole_file_for_a_proxy_of_ours(installation: Installation) -> None:
    result = fronted(installation, "{image: 'haproxy:3.0', http: '127.0.0.1:8080'}")("proxy", "config", "staging")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "global"
    assert "backend rec.staging.web" in lines
    assert any("shop.test" in line for line in lines)


def test_the_fragment_for_an_operators_own(installation: Installation) -> None:
    proxy = f"{{sockets: ['unix://{installation.root}/admin.sock'], state: {installation.root}}}"
    result = fronted(installation, proxy)("proxy", "config", "staging")
    assert result.exit_code == 0, result.output
    assert "backend rec.staging.web" in result.stdout.splitlines()
    assert "global" not in result.stdout.splitlines()


def test_without_a_proxy_the_remedy_is_told(installation: Installation) -> None:
    installation.commit()
    result = installation("proxy", "config", "staging")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the environment staging has no proxy. Set environments.staging.proxy" in result.stderr


def test_an_unknown_environment(installation: Installation) -> None:
    result = installation("proxy", "config", "stagin")
    assert result.exit_code == 1
    assert "Did you mean staging?" in result.stderr
