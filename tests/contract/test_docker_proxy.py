"""The managed proxy on a real engine: what it carries, what it counts, and that a new configuration loses nothing."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import docker
import pytest

from reconciler.core import names
from reconciler.core.delivery import Route, RouteMode
from reconciler.core.live import ProxyStatus
from reconciler.core.proxy_config import RouteWish
from tests.support.proxy_house import Load, ProxyHouse, until, web
from tools.certificate import self_signed
from tools.ports import free_port


@pytest.fixture
def house(
    engine: str, hello: Mapping[str, str], haproxy: str, raw: docker.APIClient, tmp_path: Path
) -> Iterator[ProxyHouse]:
    built = ProxyHouse(raw, engine, tmp_path, hello, haproxy)
    yield built
    built.demolish()


def test_it_starts_and_shows_its_configuration(house: ProxyHouse) -> None:
    assert house.front.status() == (ProxyStatus.ABSENT, "", "the proxy was not made yet")
    config = house.ensure(web())
    assert house.front.status() == (ProxyStatus.READY, config.digest, "")
    born = house.inspect()["State"]["StartedAt"]
    house.ensure(web())
    assert house.inspect()["State"]["StartedAt"] == born, "nothing to do"


def test_it_may_do_little_and_comes_back_by_itself(house: ProxyHouse) -> None:
    house.ensure(web())
    found = house.inspect()
    host = found["HostConfig"]
    uid = int(found["Config"]["User"].partition(":")[0])
    assert uid != 0
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert host["RestartPolicy"]["Name"] == "always"
    assert house.directory.stat().st_mode & 0o777 == 0o700
    assert house.directory.stat().st_uid == uid
    labels = found["Config"]["Labels"]
    assert labels[names.LABEL_ROLE] == "proxy"
    assert labels[names.LABEL_ENVIRONMENT] == house.environment
    assert "proxy" in found["NetworkSettings"]["Networks"][names.network(house.environment)]["Aliases"]


def test_requests_go_by_host_and_path(house: ProxyHouse) -> None:
    house.ensure(
        web(hosts=("shop.example.org",), preview="next.example.org"),
        RouteWish("api", Route(8080, hosts=("*.example.org",), paths=("/api",)), 2),
    )
    for backend, version in (
        (house.backend("web"), "1.0"),
        (house.backend("web", preview=True), "2.0"),
        (house.backend("api"), "3.0"),
    ):
        house.put(backend, 1, house.instance(version))
    asked = {
        ("shop.example.org", "/"): "1.0",
        ("SHOP.example.org.:8080", "/api"): "1.0",
        ("next.example.org", "/"): "2.0",
        ("a.example.org", "/api/x?y=/"): "3.0",
        ("a.example.org", "/apix"): "",
        ("example.org", "/"): "",
    }
    for (host, path), version in asked.items():
        status, _, headers = house.get(path, Host=host)
        assert (status, headers.get("x-version", "")) == ((200, version) if version else (404, "")), (host, path)


def test_an_h2_client_may_begin_without_asking(house: ProxyHouse) -> None:
    house.ensure(web())
    house.put(house.backend("web"), 1, house.instance())
    block = b"\x82\x86\x84\x41\x01x"  # RFC 7541: GET, http, /, :authority x
    frames = struct.pack(">I", 0)[1:] + b"\x04\x00" + b"\x00" * 4
    frames += struct.pack(">I", len(block))[1:] + b"\x01\x05" + struct.pack(">I", 1) + block
    assert house.settings.http is not None
    with socket.create_connection(house.settings.http, 60) as link, link.makefile("rb") as stream:
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
        kind, content = -1, b""
        while kind != 1:
            head = stream.read(9)
            kind, content = head[3], stream.read(int.from_bytes(head[:3], "big"))
    assert content[0] == 0x88, "status 200 in the header block"


def test_shares_are_exact_and_every_answer_is_counted(house: ProxyHouse) -> None:
    house.ensure(web())
    backend = house.backend("web")
    house.put(backend, 1, house.instance("1.0"), weight=95)
    house.put(backend, 2, house.instance("2.0"), weight=5)
    with closing(house.connection_to()) as connection:
        seen: dict[str, int] = {"1.0": 0, "2.0": 0}
        for _ in range(200):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            seen[str(answer.getheader("X-Version"))] += 1
    assert seen == {"1.0": 190, "2.0": 10}
    counted = counts(house, backend)
    assert sum(counted["s1"].values()) == 190
    assert sum(counted["s2"].values()) == 10


def counts(house: ProxyHouse, backend: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in house.say(f"show table {backend}").splitlines():
        if "key=" in line:
            slot, _, bound = line.partition("key=")[2].split()[0].partition("/")
            found.setdefault(slot, {})[bound] = int(line.rpartition("gpc0=")[2])
    return found


def test_a_slow_answer_is_counted_by_its_bound(house: ProxyHouse) -> None:
    house.ensure(web())
    backend = house.backend("web")
    house.put(backend, 1, house.instance())
    assert house.get("/slow?ms=30")[0] == 200
    (bound,) = counts(house, backend)["s1"]
    assert bound == "inf" or int(bound) >= 50


def test_tcp_has_a_port_of_its_own(house: ProxyHouse) -> None:
    port = free_port()
    house.made(tcp=((port, port),))
    house.ensure(RouteWish("db", Route(8080, RouteMode.TCP, listen=port), 1))
    house.put(house.backend("db"), 1, house.instance("2.0"))
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().getheader("X-Version") == "2.0"


def test_a_websocket_goes_on_while_the_configuration_changes_and_its_server_drains(house: ProxyHouse) -> None:
    house.ensure(web())
    backend = house.backend("web")
    house.put(backend, 1, house.instance())
    key = base64.b64encode(os.urandom(16)).decode()
    assert house.settings.http is not None
    with socket.create_connection(house.settings.http, 60) as link, link.makefile("rb") as stream:
        link.sendall(
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b" 101 " in stream.readline()
        while stream.readline().strip():
            pass

        def echo(text: bytes) -> bytes:
            link.sendall(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)
            return stream.read(2 + len(text))[2:]

        assert echo(b"one") == b"one"
        house.say(f"set server {backend}/s1 state drain")
        assert echo(b"two") == b"two"
        house.ensure(web(), RouteWish("late", Route(8080, paths=("/late",)), 1))
        assert echo(b"three") == b"three"


def test_tls_with_the_operators_certificates(house: ProxyHouse, tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    directory.mkdir()
    pem = directory / "site.pem"
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    self_signed("DNS:shop.example.org", key, certificate)
    pem.write_bytes(certificate.read_bytes() + key.read_bytes())
    directory.chmod(0o755)
    pem.chmod(0o644)
    address = ("127.0.0.1", free_port())
    house.made(https=address, certificates=directory)
    house.ensure(web())
    house.put(house.backend("web"), 1, house.instance())
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(address, 60) as link,
        trusting.wrap_socket(link, server_hostname="shop.example.org") as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"
    trusting.set_alpn_protocols(["http/1.1"])
    with (
        socket.create_connection(address, 60) as link,
        trusting.wrap_socket(link, server_hostname="shop.example.org") as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nHost: shop.example.org\r\nConnection: close\r\n\r\n")
        assert secured.recv(4096).startswith(b"HTTP/1.1 200")


def test_metrics_and_the_access_log(house: ProxyHouse) -> None:
    address = ("127.0.0.1", free_port())
    house.made(metrics=address)
    house.ensure(web())
    assert house.get("/not-there")[0] == 503
    with closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    assert f'haproxy_backend_http_responses_total{{proxy="{house.backend("web")}",code="5xx"}} 1' in text
    until(lambda: '"GET /not-there HTTP/1.1"' in house.log(), "the access log")


def test_services_come_and_go_under_load_without_a_failed_request(house: ProxyHouse) -> None:
    house.ensure(web())
    house.put(house.backend("web"), 1, house.instance())
    with Load(house) as load:
        for turn in range(5):
            load.await_more(100)
            house.ensure(web(), *(RouteWish(f"s{n}", Route(80, paths=(f"/s{n}",)), 1) for n in range(turn)))
        load.await_more(100)
    assert load.failed == []
    assert load.answered >= 600


def test_a_client_stays_with_its_instance(house: ProxyHouse) -> None:
    house.ensure(web(sticky=True))
    backend = house.backend("web")
    for slot, version in ((1, "1.0"), (2, "2.0")):
        house.put(backend, slot, house.instance(version))
    _, _, headers = house.get()
    cookie, version = headers["set-cookie"].partition(";")[0], headers["x-version"]
    assert [house.get(Cookie=cookie)[2]["x-version"] for _ in range(4)] == [version] * 4
    house.front.keep(0, house.say("show servers state"))
    house.raw.restart(house.name, timeout=5)
    until(lambda: house.front.status()[0] is ProxyStatus.READY, "it is back")
    assert [house.get(Cookie=cookie)[2]["x-version"] for _ in range(4)] == [version] * 4


def test_a_request_for_a_service_that_sleeps_is_kept_until_an_instance_is_up(house: ProxyHouse) -> None:
    port = free_port()
    house.made(tcp=((port, port),))
    long = timedelta(seconds=20)
    house.ensure(
        RouteWish("fn", Route(8080), 2, wake=long),
        RouteWish("db", Route(8080, RouteMode.TCP, listen=port), 1, wake=long),
    )
    address = house.instance("3.0")
    answers: dict[str, int] = {}

    def ask(name: str, connection: http.client.HTTPConnection) -> None:
        with closing(connection):
            connection.request("GET", "/")
            answers[name] = connection.getresponse().status

    tcp = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    threads = [
        threading.Thread(target=ask, args=("fn", house.connection_to())),
        threading.Thread(target=ask, args=("db", tcp)),
    ]
    for thread in threads:
        thread.start()
    for service in ("fn", "db"):
        until(partial(waits, house, house.backend(service)), "the request is kept")
    assert answers == {}
    for service in ("fn", "db"):
        house.put(house.backend(service), 1, address)
    for thread in threads:
        thread.join(60)
    assert answers == {"fn": 200, "db": 200}


def waits(house: ProxyHouse, backend: str) -> bool:
    """Whether a backend has one session that is at none of its servers."""
    rows = [line.split(",") for line in house.say(f"show stat {backend} 6 -1").splitlines() if line.startswith("rec.")]
    return sum(int(row[4]) * (1 if row[1] == "BACKEND" else -1) for row in rows) == 1


def test_nobody_waits_longer_than_the_route_says(house: ProxyHouse) -> None:
    house.ensure(RouteWish("fn", Route(8080), 2, wake=timedelta(milliseconds=300)), web(paths=("/awake",)))
    began = time.monotonic()
    assert house.get()[0] == 503
    assert time.monotonic() - began >= 0.3, "it was not kept at all"
    assert house.get("/awake")[0] == 503
