"""The rows webhook flood, webhook auth bypass, timing and replay of the threat table, against the real server."""

import http.client
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.triggers.webhook import BODY_LIMIT, DELIVERIES_KEPT, HELD_LIMIT
from reconciler.triggers.webhook_forges import FORGES
from reconciler.web.serve import BoundedProtocol
from tests.support.webhook_payloads import SECRET, SHA, body_of, headers_for, push
from tests.support.webhouse import Quick, running

GIB = 1024**3


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("house")) as it:
        yield it


@pytest.fixture(autouse=True)
def _as_it_was(house):
    secrets = dict(house.secrets)
    yield
    house.secrets.clear()
    house.secrets.update(secrets)
    house.take_all()


def deliver(house, forge, payload, headers=None, **options):
    body = body_of(payload)
    sent = headers_for(forge, body, **options) if headers is None else headers
    return house.client.post(f"/webhook/{forge}", content=body, headers=sent)


def forget_peak() -> None:
    """Let the kernel measure the peak of this very process (which is the server too) from now on; see proc(5)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes of memory this process held since then."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize("secret", [None, b"", b"   ", b"\n\t"])
def test_without_a_secret_there_is_no_endpoint(house, forge, secret):
    """Not even for who signs with the empty secret."""
    house.secrets.pop(forge)
    if secret is not None:
        house.secrets[forge] = secret
    # White space alone cannot be sent as a header's value, which is how GitLab proves itself.
    answer = deliver(house, forge, push(forge), secret=b"" if forge == "gitlab" else secret or b"")
    assert answer.status_code == 503
    assert "webhook.secretFile" in answer.json()["remedy"]
    assert house.take_all() == []


def test_a_repository_without_webhook_settings_has_no_endpoint(house):
    assert house.client.post("/webhook/plain", content=b"{}").status_code == 503


@pytest.mark.parametrize("forge", FORGES)
def test_a_wrong_secret_is_refused(house, forge):
    before = house.count(forge, "unauthorized")
    answer = deliver(house, forge, push(forge), secret=b"wrong")
    assert answer.status_code == 401
    assert house.count(forge, "unauthorized") == before + 1
    assert house.take_all() == []


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize("value", [b"", b"x", b"sha256=", b"\xff\xfe\xfd", b"\xc3\xa4" * 40, b"0" * 9000, None])
def test_odd_proofs_are_refused_not_errors(house, forge, value):
    body = body_of(push(forge))
    names = (
        "X-Hub-Signature-256",
        "X-Hub-Signature",
        "X-Gitlab-Token",
        "Authorization",
        f"X-{forge.title()}-Signature",
    )
    headers = [(k.encode(), v.encode()) for k, v in headers_for(forge, body).items() if k not in names]
    proof = next(name for name in names if name in headers_for(forge, body))
    if value is not None:
        headers.append((proof.encode(), value))
    # The client's own token must not stand in for the proof.
    headers += [] if forge == "azure" and value is not None else [(b"Authorization", b"Basic eDp4")]
    headers = headers if forge != "azure" else [pair for pair in headers if pair != (b"Authorization", b"Basic eDp4")]
    answer = house.client.post(f"/webhook/{forge}", content=body, headers=headers)
    assert answer.status_code == 401


def test_an_unknown_repository_looks_like_any_unknown_path(house):
    known_not = house.client.post("/webhook/nobody", content=b"{}")
    assert known_not.status_code == 404
    assert known_not.json() == house.client.get("/api/v1/nothing").json()


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"repository": null, "ref": null, "project": null, "push": null, "resource": null, "changes": null}',
        b'{"repository": 1, "ref": 2, "object_kind": "push", "eventType": "git.push"}',
        b'{"repository": {}, "ref": [], "object_kind": "push", "push": {"changes": [null]}, "changes": [1]}',
        b'{"eventType": "git.push", "id": {"a": 1}, "resource": {"refUpdates": [null], "repository": []}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\x00\xff",
    ],
)
def test_authentic_nonsense_is_told_so_and_never_a_server_error(house, forge, payload):
    answer = deliver(house, forge, payload)
    assert answer.status_code in (200, 400)
    reason = answer.json()["error"] if answer.status_code == 400 else answer.json()["ignored"][0]
    assert reason
    assert house.take_all() == []


@pytest.mark.parametrize("forge", [name for name in FORGES if FORGES[name].event_header and name != "gitlab"])
def test_a_missing_event_header_is_told_so(house, forge):
    body = body_of(push(forge))
    headers = {k: v for k, v in headers_for(forge, body).items() if k.lower() != FORGES[forge].event_header}
    answer = deliver(house, forge, body, headers=headers)
    assert answer.status_code == 400
    assert FORGES[forge].event_header in answer.json()["error"]


def test_nothing_of_a_payload_reaches_the_inbox(house):
    """Least of all a SHA: the hint is the environment's name and the repository's."""
    deliver(house, "github", push("github"), delivery="sha")
    name, causes = house.inbox.take(0)
    house.inbox.done(name)
    assert [cause.detail for cause in causes] == ["github"]
    assert SHA not in repr((name, causes))


def test_a_thousand_replays_cost_at_most_one_more_look(house):
    body = body_of(push("github"))
    for _ in range(1000):
        assert deliver(house, "github", body, delivery="replayed").status_code in (200, 202)
    assert house.take_all() == ["github-production"]


def test_a_thousand_deliveries_at_once_are_two_looks(house):
    """One that is under way when they come, one after it."""
    body = body_of(push("github"))
    deliver(house, "github", body, delivery="burst-first")
    taken, _ = house.inbox.take(0)
    for number in range(1000):
        assert deliver(house, "github", body, delivery=f"burst-{number}").status_code == 202
    assert house.inbox.take(0) is None
    house.inbox.done(taken)
    assert house.take_all() == ["github-production"]


def test_the_memory_of_deliveries_is_bounded(tmp_path):
    with running(tmp_path) as it:
        hook = it.house.webhook.__self__
        for number in range(DELIVERIES_KEPT + 100):
            hook._remember("github", f"{number}" * 50)
        assert len(hook._seen) == DELIVERIES_KEPT
        assert all(len(identity) <= 128 for _, identity in hook._seen)


def test_a_body_declared_too_large_is_refused_before_it_is_sent(house):
    with house.raw() as sock:
        sock.sendall(f"POST /webhook/github HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * GIB}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 413
        assert answer.headers["connection"] == "close"


def test_a_body_beyond_any_number_is_refused(house):
    with house.raw() as sock:
        length = b"9" * 300
        sock.sendall(b"POST /webhook/github HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + length + b"\r\n\r\n")
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status in (400, 413)


@pytest.mark.parametrize("path", ["/webhook/github", "/webhook/nobody", "/api/v1/environments", "/livez"])
@pytest.mark.parametrize("framing", ["declared", "chunked"])
def test_two_gigabytes_grow_no_memory(house, path, framing):
    """Sent for as long as the server lets us; it hangs up long before the end."""
    chunk = b"a" * 65536
    forget_peak()
    before = peak()
    sent = 0
    with house.raw() as sock:
        sized = f"Content-Length: {2 * GIB}" if framing == "declared" else "Transfer-Encoding: chunked"
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{sized}\r\n\r\n".encode())
        piece = chunk if framing == "declared" else b"10000\r\n" + chunk + b"\r\n"
        try:
            while sent < 2 * GIB:
                sock.sendall(piece)
                sent += len(chunk)
        except OSError:
            pass
        grown = peak() - before
    assert sent < 64 * 1024**2
    assert grown < 16 * 1024**2


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(house):
    at = b'{"a": "' + b"x" * (BODY_LIMIT - 9) + b'"}'
    assert len(at) == BODY_LIMIT
    assert deliver(house, "github", at, event="star").status_code == 200
    assert deliver(house, "github", at + b" ", event="star").status_code == 413


def test_bodies_together_are_bounded_too(house):
    """Many senders, each within its own limit."""
    hook = house.house.webhook.__self__
    hook._held += HELD_LIMIT
    try:
        assert deliver(house, "github", push("github"), delivery="busy").status_code == 503
    finally:
        hook._held -= HELD_LIMIT
    assert hook._held == 0
    assert deliver(house, "github", push("github"), delivery="busy").status_code == 202


def test_a_body_that_drips_is_cut_off(tmp_path):
    with running(tmp_path, body_seconds=0.3) as it, it.raw() as sock:
        sock.sendall(b"POST /webhook/github HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 408
        answer.read()
        assert sock.recv(1) == b""
        assert it.count("github", "timeout") == 1


def hung_up_on(sock, words=b""):
    """Say `words`, whether they are still heard or not; whether the server hung up without a word."""
    with suppress(ConnectionResetError, BrokenPipeError):
        sock.sendall(words)
        return sock.recv(1) == b""
    return True


@pytest.mark.parametrize("first", [b"", b"GET /livez HTTP/1.1\r\nHost: local"])
def test_headers_that_drip_are_cut_off(tmp_path, first):
    with running(tmp_path, protocol=Quick) as it, it.raw() as sock:
        assert hung_up_on(sock, first)


def test_headers_that_drip_on_a_used_connection_are_cut_off(tmp_path):
    class Soon(BoundedProtocol):
        pass

    with running(tmp_path, protocol=Soon) as it, it.raw() as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 200
        answer.read()
        Soon.header_seconds = 1.0  # for the next request
        assert hung_up_on(sock, b"GET /livez HT")


def test_endless_headers_are_refused(house):
    with house.raw() as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 400


def test_idle_connections_do_not_shut_others_out_for_ever(tmp_path):
    """A slowloris with more connections than there are places: they are hung up on, and then there is room again."""
    with running(tmp_path, protocol=Quick) as it:
        sockets = [it.raw() for _ in range(300)]
        try:
            assert all(hung_up_on(sock) for sock in sockets)
            assert it.client.get("/livez").status_code == 200
        finally:
            for sock in sockets:
                sock.close()


def test_a_secret_in_a_payload_is_not_echoed(house):
    payload = push("github")
    payload["ref"] = "refs/heads/" + SECRET.decode()
    answer = deliver(house, "github", payload)
    assert answer.status_code == 200
    assert "[redacted]" in answer.text
    assert SECRET.decode() not in answer.text
