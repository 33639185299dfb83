"""The settings of proxies and of Prometheus: values, permissions that follow from them, and every mistake."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from reconciler import settings
from reconciler.core.errors import Rejected
from reconciler.core.policy import Allow
from reconciler.settings import EnvironmentSettings, PrometheusSettings, ProxySettings

HERE = Path("/etc/rec")
RUNTIMES = """{local: {docker: {}}, same: {docker: {host: "unix:///var/run/docker.sock"}},
  far: {docker: {host: "ssh://host"}}}"""
OURS = "image: haproxy:3.0, http: '127.0.0.1:8080'"
THEIRS = "sockets: ['unix:///run/h.sock'], state: st"


def parse(*, runtimes: str = RUNTIMES, **environments: str) -> settings.Settings:
    """Settings with these environments, which run on `local` unless they say where."""
    lines = [f"{{repository: fleet, runtime: local, {text}}}" for text in environments.values()]
    lines = [line.replace("runtime: local, runtime:", "runtime:") for line in lines]
    text = f"""data: data
repositories: {{fleet: {{url: "https://git.test/fleet.git"}}}}
runtimes: {runtimes}
environments: {{{", ".join(f"{name}: {line}" for name, line in zip(environments, lines, strict=True))}}}
"""
    return settings.parse(text.encode(), HERE / "settings.yaml")


def environment(text: str) -> EnvironmentSettings:
    return parse(prod=text).environments["prod"]


def problems(**environments: str) -> list[str]:
    """What is wrong, without the places."""
    with pytest.raises(Rejected) as caught:
        parse(**environments)
    return [line.partition(": ")[2] for line in str(caught.value).splitlines()]


def test_a_proxy_of_ours_has_its_values():
    text = """proxy: {image: 'registry.test:5000/haproxy:3.0@sha256:%s', http: '0.0.0.0:80', https: '[::]:443',
      certificates: certs, tcp: {address: 127.0.0.2, ports: ["5000-5100", "6000"]}, metrics: '127.0.0.1:8405',
      timeout: 500ms}"""
    found = environment(text % ("a" * 64))
    assert found.proxy == ProxySettings(
        image="registry.test:5000/haproxy:3.0@sha256:" + "a" * 64,
        http=("0.0.0.0", 80),
        https=("::", 443),
        certificates=HERE / "certs",
        tcp_address="127.0.0.2",
        tcp=((5000, 5100), (6000, 6000)),
        metrics=("127.0.0.1", 8405),
        timeout=timedelta(milliseconds=500),
    )
    assert found.allow == Allow(proxy=True, listen=((5000, 5100), (6000, 6000)))
    assert environment(f"proxy: {{{OURS}}}").allow == Allow(proxy=True)


def test_a_proxy_of_the_operator_has_its_values():
    found = environment("proxy: {sockets: ['unix:///run/h.sock', 'tcp://[::1]:9999'], state: st, timeout: 1s}")
    assert found.proxy == ProxySettings(
        sockets=("unix:///run/h.sock", "tcp://[::1]:9999"), state=HERE / "st", timeout=timedelta(seconds=1)
    )
    assert found.allow == Allow(proxy=True, listen=((1, 65535),)), "its own configuration says where it listens"


def test_prometheus_has_its_values():
    found = environment("prometheus: {url: 'https://prom.test:9090/x', tokenFile: token, timeout: 3s}")
    assert found.prometheus == PrometheusSettings("https://prom.test:9090/x", HERE / "token", timedelta(seconds=3))
    assert found.allow == Allow(prometheus=True)
    assert environment("prometheus: {url: 'http://127.0.0.1:9090'}").prometheus == PrometheusSettings(
        "http://127.0.0.1:9090"
    )


def test_volumes_and_emergencies_are_allowed_by_name():
    assert environment("allow: {volumes: true}").allow == Allow(volumes=True)
    assert environment("allow: {emergency: true}").allow == Allow(emergency=True)


EITHER = "a proxy has either image, with http, https, certificates, tcp and metrics, or sockets and state of your own"


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("", [EITHER]),
        ("http: '127.0.0.1:80'", [EITHER]),
        ("sockets: ['unix:///a']", [EITHER]),
        (f"{OURS}, {THEIRS}", [EITHER]),
        (f"{OURS}, state: x", [EITHER]),
        (f"{THEIRS}, http: '127.0.0.1:80'", [EITHER]),
        (f"{THEIRS}, tcp: {{ports: ['80']}}", [EITHER]),
        ("image: haproxy", ["this proxy would listen nowhere; write http, https or tcp"]),
        ("image: haproxy, metrics: '127.0.0.1:80'", ["this proxy would listen nowhere; write http, https or tcp"]),
        ("image: -x, http: '127.0.0.1:80'", ['"-x" is not valid here: write the name of an image']),
        ("image: haproxy, http: ':80'", ['":80" is not valid here: write an IP address and a port']),
        ("image: haproxy, http: 'localhost:80'", ['"localhost:80" is not valid here: write an IP address']),
        ("image: haproxy, http: '127.0.0.1:0'", ["these are no ports; write one or, with the lower one first"]),
        ("image: haproxy, http: '127.0.0.1:65536'", ["these are no ports"]),
        ("image: haproxy, http: '300.0.0.1:80'", ['"300.0.0.1" is not an IP address; write one']),
        ("image: haproxy, tcp: {address: h, ports: ['81']}", ['"h" is not an IP address; write one']),
        ("image: haproxy, tcp: {ports: ['81', '90-82']}", ["these are no ports"]),
        ("image: haproxy, tcp: {ports: []}", ["this is empty; add something or remove it"]),
        ("image: haproxy, tcp: {ports: ['2000-2999', '3000']}", ["these are more than 1000 ports; write fewer"]),
        ("image: haproxy, tcp: {ports: ['400-500']}", ["port 443 is the proxy's own; leave 80, 443, 8405 out"]),
        ("image: haproxy, https: '127.0.0.1:443'", ["https goes with certificates; write both or none"]),
        (f"{OURS}, certificates: c", ["certificates goes with https; write both or none"]),
        ("sockets: ['http://x'], state: s", ['"http://x" is not valid here: write unix:///path or tcp://host:port']),
        ("sockets: ['tcp://x:65536'], state: s", ["the port is not within 1-65535; choose another"]),
        ("sockets: ['unix:///a', 'unix:///a'], state: s", ["this socket is here twice; remove one"]),
        (f"{OURS}, timeout: 1ms", ['"1ms" is too small; at least 100ms']),
    ],
)
def test_a_mistake_in_a_proxy_is_named(proxy: str, expected: list[str]):
    found = problems(prod=f"proxy: {{{proxy}}}")
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        (
            "image: h, http: '127.0.0.1:80', metrics: '127.0.0.1:80'",
            "port 80 at 127.0.0.1 is also wanted by prod (http)",
        ),
        (
            "image: h, http: '127.0.0.1:81', tcp: {ports: ['81-82']}",
            "port 81 at 127.0.0.1 is also wanted by prod (http)",
        ),
        ("image: h, tcp: {ports: ['70-79', '79']}", "port 79 at 127.0.0.1 is also wanted by prod (tcp)"),
        ("image: h, http: '0.0.0.0:80', metrics: '127.0.0.1:80'", "port 80 at 127.0.0.1 is also wanted by prod (http)"),
        ("image: h, http: '127.0.0.1:80', metrics: '[::]:80'", "port 80 at :: is also wanted by prod (http)"),
        ("image: h, http: '127.0.0.1:80', metrics: '127.0.0.2:80'", ""),
        ("image: h, http: '127.0.0.1:80', metrics: '127.0.0.1:81'", ""),
    ],
)
def test_one_proxy_wants_no_address_twice(proxy: str, expected: str):
    if not expected:
        assert parse(prod=f"proxy: {{{proxy}}}")
        return
    assert problems(prod=f"proxy: {{{proxy}}}") == [f"{expected}; give each its own"]


def test_a_mistake_is_told_with_its_place():
    with pytest.raises(Rejected, match=r"settings\.yaml:5:65: this proxy would listen nowhere"):
        parse(prod="proxy: {image: h, metrics: '127.0.0.1:1'}")


def test_environments_on_one_engine_do_not_share_an_address():
    ours = f"proxy: {{{OURS}}}"
    shared = ["port 8080 at 127.0.0.1 is also wanted by prod (http); give each its own"]
    assert problems(prod=ours, stage=ours) == shared
    assert problems(prod=ours, stage=ours.replace("http:", "tcp: {ports: ['8080']}, metrics:")) == [
        "port 8080 at 127.0.0.1 is also wanted by prod (http); give each its own",
        "port 8080 at 127.0.0.1 is also wanted by prod (http); give each its own",
    ]
    assert parse(prod=ours, stage=ours.replace("8080", "8081"))


def test_an_engine_is_told_by_its_address_and_not_by_its_name():
    ours = f"proxy: {{{OURS}}}"
    assert len(problems(prod=ours, stage=f"runtime: same, {ours}")) == 1
    assert parse(prod=ours, stage=f"runtime: far, {ours}")


@pytest.mark.parametrize("runtimes", ["5", "{local: 5}", "{local: {docker: 5}}", "{other: {docker: {}}}"])
def test_an_engine_that_is_not_right_itself_does_not_hide_what_else_is_wrong(runtimes: str):
    with pytest.raises(Rejected, match="this proxy would listen nowhere"):
        parse(runtimes=runtimes, prod="proxy: {image: h}")


def test_environments_do_not_share_a_directory_of_state():
    theirs = f"proxy: {{{THEIRS}}}"
    assert problems(prod=theirs, stage=theirs.replace("state: st", "state: ./st/")) == [
        "this is also the directory of prod; give each its own"
    ]
    assert parse(prod=theirs, stage=theirs.replace("state: st", "state: other"))


@pytest.mark.parametrize(
    "url", ["prom.test", "http://a:secret@prom.test", "http://prom.test?x=secret", "ftp://secret", "http://-secret"]
)
def test_an_address_of_prometheus_that_is_none_is_not_repeated(url: str):
    (problem,) = problems(prod=f"prometheus: {{url: '{url}'}}")
    assert problem.startswith("write http://host:port or https://host; credentials belong into tokenFile")
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("proxy: {image: h, http: '0.0.0.0:80'}", ""),
        ("proxy: {sockets: ['unix:///a', 'tcp://127.0.0.1:1', 'tcp://[::1]:1', 'tcp://localhost:1'], state: s}", ""),
        (
            "proxy: {sockets: ['tcp://10.0.0.1:1'], state: s}",
            "environment prod: anybody who reaches tcp://10.0.0.1:1 steers its traffic; use a unix:// socket",
        ),
        ("prometheus: {url: 'http://prom.test'}", ""),
        ("prometheus: {url: 'https://prom.test', tokenFile: t}", ""),
        ("prometheus: {url: 'http://127.0.0.1:9090/x', tokenFile: t}", ""),
        ("prometheus: {url: 'http://[::1]:9090', tokenFile: t}", ""),
        (
            "prometheus: {url: 'http://prom.test:9090', tokenFile: t}",
            "environment prod: prometheus.tokenFile is sent unencrypted; use an https URL",
        ),
    ],
)
def test_what_is_allowed_but_unsafe_is_said(text: str, warning: str):
    assert parse(prod=text).warnings == ((warning,) if warning else ())
