"""The row unauthenticated API of the threat table: denied by default, exact paths, no tricks, no secrets."""

import http.client
import json
import threading
from dataclasses import replace

import pytest

from reconciler.core.errors import Stalled
from reconciler.settings import HttpSettings
from reconciler.web.app import create_app
from reconciler.web.auth import SECRET_LIMIT, SECURITY_HEADERS, is_loopback, read_secret, token_matches
from tests.support.webhouse import TOKEN, Quick, entry, running, status

OPEN = {"/livez", "/readyz", "/webhook/{repository}"}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("house")) as it:
        it.board.publish(status("github-production"))
        yield it


@pytest.fixture(autouse=True)
def _as_it_was(house):
    settings = house.settings
    yield
    house.settings, house.token = settings, TOKEN
    house.take_all()


def ask(house, method, path, headers=()):
    """Without the help of a client: the path goes out exactly as written. Status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=any(name.lower() == "host" for name, _ in headers))
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def routes(house):
    filled = {"{repository}": "github", "{name}": "github-production", "{index}": "1"}
    for route in create_app(house.house).routes:
        path = route.path
        for part, value in filled.items():
            path = path.replace(part, value)
        yield route.path, path, sorted(route.methods)


def bearer(token=TOKEN):
    return [("Authorization", b"Bearer " + token)]


def test_every_route_but_the_open_ones_needs_the_token(house):
    for template, path, methods in routes(house):
        for method in methods:
            code, headers, _ = ask(house, method, path)
            if template in OPEN:
                assert code in (200, 401), path
            else:
                assert (code, headers["www-authenticate"]) == (401, "Bearer"), path
            assert ask(house, method, path, bearer())[0] in (200, 202, 401 if "webhook" in path else 200), path
    assert house.take_all() == ["github-production"]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer x",
        TOKEN,
        b"Basic " + TOKEN,
        b"Bearer " + TOKEN[:-1],
        b"Bearer " + TOKEN + b"x",
        b"Bearer " + TOKEN.upper(),
        b"Bearer \xff\xfe\xfd",
        b"Bearer " + "tökén".encode(),
        b"Bearer " + b"x" * 8000,
    ],
)
def test_a_wrong_token_is_refused_not_an_error(house, value):
    assert ask(house, "GET", "/api/v1/environments", [("Authorization", value)])[0] == 401


def test_who_comes_without_the_token_is_told_what_to_send(house):
    remedy = json.loads(ask(house, "GET", "/api/v1/environments")[2])["remedy"]
    assert "http.tokenFile" in remedy
    assert "[redacted]" not in remedy, "advice in the shape of a secret does not get out"


def test_the_scheme_is_told_apart_by_its_word_not_its_case(house):
    assert ask(house, "GET", "/api/v1/environments", [("Authorization", b"bearer " + TOKEN)])[0] == 200


def test_without_a_configured_token_the_api_is_closed_to_everyone(house):
    house.token = b""
    for headers in ([], bearer(b""), bearer(b"x")):
        code, _, body = ask(house, "GET", "/api/v1/environments", headers)
        assert code == 503
        assert b"http.tokenFile" in body
    assert not token_matches("Bearer ", b"")


def test_metrics_are_open_without_a_token_on_loopback_only(house):
    assert ask(house, "GET", "/metrics")[0] == 401
    house.token = b""
    assert ask(house, "GET", "/metrics")[0] == 200
    house.settings = replace(house.settings, http=HttpSettings(host="0.0.0.0"))
    assert ask(house, "GET", "/metrics")[0] == 503


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/environments/",
        "//api/v1/environments",
        "/api//v1/environments",
        "/api/v1/environments;x",
        "/api/v1/environments%2f",
        "/api/v1/environments/github-production/plan/",
        "/api/v1/environments/github-production/plan.json",
        "/api/v1/environments/github-production%2Fplan",
        "/API/v1/environments",
        "/livez/",
        "/livez/..;/api/v1/environments",
        "/livez/../api/v1/environments",
        "/livez%2f..%2fapi%2fv1%2fenvironments",
        "/readyz/x",
        "/metrics/",
        "/metrics.txt",
        "/webhook",
        "/webhook/",
        "/webhook/../api/v1/environments",
        "/webhook/x/../../api/v1/environments",
        "/webhook//api/v1/environments",
        "/",
        "/api",
        "/static/x",
        "/.git/config",
    ],
)
def test_only_exact_paths_lead_anywhere(house, path):
    code, headers, body = ask(house, "GET", path)
    assert code in (401, 404), path
    assert b"github-production" not in body
    code, headers, body = ask(house, "GET", path, bearer())
    assert code == 404, path
    assert "location" not in headers


def test_an_encoded_path_leads_past_no_guard_and_nowhere(house):
    assert ask(house, "GET", "/%61pi/v1/environments")[0] == 401
    assert ask(house, "GET", "/%61pi/v1/environments", bearer())[0] == 404
    assert ask(house, "GET", "/%6civez")[0] == 404
    assert ask(house, "GET", "/livez?x=%2F")[0] == 200


@pytest.mark.parametrize(
    "method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "POST\u00e9"]
)
def test_other_methods_are_refused(house, method):
    for _, path, methods in routes(house):
        try:
            code, headers, _ = ask(house, method, path, bearer())
        except (UnicodeEncodeError, ValueError):
            continue
        assert code in (400, 405), (method, path)
        if code == 405:
            assert set(headers["allow"].split(", ")) == set(methods)
        assert "access-control-allow-origin" not in headers
    assert house.take_all() == []


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_a_method_cannot_be_overridden(house, name):
    path = "/api/v1/environments/github-production/reconcile"
    assert ask(house, "GET", path, [*bearer(), (name, "POST")])[0] == 405
    assert ask(house, "GET", f"{path}?_method=POST", bearer())[0] == 405
    assert house.take_all() == []


@pytest.mark.parametrize("name", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-For"])
def test_a_path_or_sender_cannot_be_overridden(house, name):
    assert ask(house, "GET", "/api/v1/environments", [(name, "/livez"), (name, "127.0.0.1")])[0] == 401


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True),
        ("LocalHost.:8480", True),
        ("127.0.0.1", True),
        ("127.8.8.8:1", True),
        ("[::1]:8480", True),
        ("evil.test", False),
        ("evil.test:8480", False),
        ("127.0.0.1.evil.test", False),
        ("localhost.evil.test", False),
        ("192.168.0.1", False),
        ("[::2]", False),
        ("", False),
        ("x" * 5000, False),
    ],
)
def test_a_rebound_name_gets_nothing_on_loopback(house, host, served):
    """A web page whose name suddenly means 127.0.0.1 still sends that name."""
    for path in ("/livez", "/metrics", "/api/v1/environments"):
        code = ask(house, "GET", path, [*bearer(), ("Host", host)])[0]
        assert (code == 200) is served
        assert served or code in (400, 421)


def test_behind_another_address_names_are_free(house):
    house.settings = replace(house.settings, http=HttpSettings(host="0.0.0.0"))
    assert ask(house, "GET", "/livez", [("Host", "reconciler.internal")])[0] == 200


def test_forges_may_use_any_name(house):
    assert ask(house, "POST", "/webhook/nobody", [("Host", "hooks.example.test"), ("Content-Length", "0")])[0] == 404


def test_every_answer_is_sealed(house):
    for method, path, headers in (
        ("GET", "/livez", []),
        ("GET", "/api/v1/environments", bearer()),
        ("GET", "/api/v1/environments", []),
        ("GET", "/nothing", bearer()),
        ("PUT", "/livez", []),
        ("POST", "/webhook/nobody", []),
        ("GET", "/livez", [("Host", "evil.test")]),
        ("GET", "/api/v1/environments", [("Origin", "https://evil.test"), *bearer()]),
    ):
        got = ask(house, method, path, headers)[1]
        assert {name: got[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "server" not in got
        assert not [name for name in got if name.lower().startswith("access-control")]


def test_a_secret_that_got_into_a_status_or_record_does_not_get_out(house):
    leak = f"fetch of https://bob:{TOKEN.decode()}@git.test failed with Authorization: Basic dXNlcjpwdzEyMzQ="
    house.board.publish(status("github-staging", message=leak, problems={"web": (leak,)}))
    index = house.journal.append(entry(1, reason=leak, details={"log": [leak], leak: "x"}))[0].index
    for path in ("environments", "environments/github-staging", "records", f"records/{index}"):
        body = ask(house, "GET", f"/api/v1/{path}", bearer())[2]
        assert b"[redacted]" in body
        assert TOKEN not in body
        assert b"dXNlcjpwdz" not in body


def test_a_client_that_never_reads_is_hung_up_on(tmp_path):
    gone = threading.Event()

    class Noted(Quick):
        header_seconds = 60.0

        def connection_lost(self, exc):
            super().connection_lost(exc)
            gone.set()

    with running(tmp_path, protocol=Noted) as it:
        it.journal.append(*(entry(number, details={"log": ["x" * 40_000]}) for number in range(90)))
        with it.raw() as sock:
            question = b"GET /api/v1/records?limit=90 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + TOKEN
            sock.sendall((question + b"\r\n\r\n") * 8)
            assert gone.wait(60)


def test_secret_files_are_read_bounded_and_trimmed(tmp_path):
    file = tmp_path / "token"
    file.write_bytes(b"  s3cret\n")
    assert read_secret(file) == b"s3cret"
    assert read_secret(None) == b""
    file.write_bytes(b"\n")
    assert read_secret(file) == b""
    file.write_bytes(b"x" * (SECRET_LIMIT + 1))
    with pytest.raises(Stalled, match="longer than"):
        read_secret(file)
    with pytest.raises(Stalled, match="cannot be read"):
        read_secret(tmp_path / "missing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.test", "", "127.0.0.1.example.test"])
def test_what_is_not_loopback(host):
    assert not is_loopback(host)
