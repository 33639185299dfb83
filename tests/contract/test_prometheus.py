"""The Prometheus adapter against a real HTTP server: a number or a reason; no server can hold, flood or redirect it."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from reconciler.adapters.prometheus import MAX_ANSWER, Answer, Prometheus
from tests.support.engine_roads import Papers, papers
from tools.ports import free_port

TIMEOUT = 30.0
SHORT = 0.3
TOKEN = b"s3cr3t-t0ken-of-the-operator"

Saying = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A server on loopback, and the requests that it got."""

    def __init__(self, answer: Saying, owner: Papers | None = None) -> None:
        requests: list[tuple[str, dict[str, str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append((self.path, dict(self.headers)))
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Keep the test's output clean."""

        self.requests = requests
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http{'s' * (owner is not None)}://127.0.0.1:{self._server.server_port}"
        if owner is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(owner.cert, owner.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)


@contextmanager
def serving(answer: Saying, owner: Papers | None = None) -> Iterator[Server]:
    server = Server(answer, owner)
    try:
        yield server
    finally:
        server.close()


def saying(body: bytes, status: int = 200, **headers: str) -> Saying:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def result(kind: str, result: object, **more: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **more}).encode()


def sample(text: object, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [1_700_000_000.123, text]}


def asked(answer: Saying, timeout: float = TIMEOUT, token: bytes | None = None) -> Answer:
    with serving(answer) as server:
        return Prometheus(server.url, timeout, token).query("up")


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (result("vector", [sample("0.25", job="web")]), 0.25),
        (result("vector", [sample("1e-3")]), 0.001),
        (result("vector", [sample("-7")], infos=["PromQL info"]), -7.0),
        (result("scalar", [1_700_000_000, "42"]), 42.0),
    ],
)
def test_a_single_number_is_the_answer(body: bytes, value: float) -> None:
    assert asked(saying(body)) == Answer(value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (result("vector", []), "the query found no data"),
        (result("vector", [sample("NaN")]), "the value is NaN"),
        (result("vector", [sample("+Inf")]), "the value is +Inf"),
        (result("scalar", [0, "-Inf"]), "the value is -Inf"),
        (result("vector", [sample("1", a="1"), sample("2", a="2")]), "the query found 2 series, and one is needed"),
        (result("vector", [sample("many")]), "its value is no number: many"),
        (result("vector", [sample(1)]), "the query gave a vector, and a scalar or a vector of one sample is needed"),
        (result("vector", [{"metric": {}, "histogram": [0, {}]}]), "the query gave a vector"),
        (result("matrix", [{"metric": {}, "values": [[0, "1"]]}]), "the query gave a matrix"),
        (result("string", [0, "text"]), "the query gave a string"),
        (b'{"status": "error", "error": "out of luck"}', "its answer is not one of a Prometheus: out of luck"),
        (b'{"status": "success"}', "its answer is not one of a Prometheus"),
        (b'{"status": "success", "data": {"resultType": 1}}', "its answer is not one of a Prometheus"),
        (b"[]", "its answer is not one of a Prometheus"),
        (b"<html>", "its answer is not one of a Prometheus"),
        (b"", "its answer is not one of a Prometheus"),
        (b"\xff\xfe\x00", "its answer is not one of a Prometheus"),
        (b"[" * 500_000, "its answer is not one of a Prometheus"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "its answer is not one of a Prometheus"),
    ],
)
def test_everything_else_is_a_reason(body: bytes, said: str) -> None:
    answer = asked(saying(body))
    assert answer.value is None
    assert said in answer.said
    assert answer.said.startswith("Prometheus http://127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, b'{"status":"error","errorType":"bad_data","error":"parse error"}', "it answered 400: parse error"),
        (401, b"Unauthorized", "it answered 401"),
        (404, b"404 page not found", "it answered 404"),
        (422, b'{"status":"error","error":"many-to-many"}', "it answered 422: many-to-many"),
        (503, b'{"status":"error","error":["not text"]}', "it answered 503"),
        (500, result("scalar", [0, "1"]), "it answered 500"),
        (204, b"", "it answered 204"),
    ],
)
def test_a_status_that_is_not_200_is_a_reason(status: int, body: bytes, said: str) -> None:
    answer = asked(saying(body, status))
    assert (answer.value, answer.said.partition(": ")[2]) == (None, said)


def test_a_warning_comes_with_the_value() -> None:
    answer = asked(saying(result("scalar", [0, "1"], warnings=["a store\ndid not answer"])))
    assert (answer.value, answer.said.partition(": ")[2]) == (1.0, "it warns: a store did not answer")


def test_the_query_arrives_as_it_is_written() -> None:
    promql = 'sum(rate(http_requests_total{code=~"5..", env="prod ü&+#%"}[1m])) > 0'
    with serving(saying(result("scalar", [0, "1"]))) as server:
        assert Prometheus(f"{server.url}/prefix/", TIMEOUT).query(promql).value == 1
    path, headers = server.requests[0]
    parts = urlsplit(path)
    assert (parts.path, parse_qs(parts.query)) == ("/prefix/api/v1/query", {"query": [promql]})
    assert "Authorization" not in headers


def test_a_chunked_answer_is_read() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = result("vector", [sample("3", job="x" * 10_000)])
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 1_000):
            piece = body[start : start + 1_000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    assert asked(answer) == Answer(3.0)


# Secrets


def test_the_token_is_sent_and_never_told() -> None:
    def echo(handler: BaseHTTPRequestHandler) -> None:
        error = {"status": "error", "error": f"who is {handler.headers['Authorization']} / {TOKEN.decode()}?"}
        saying(json.dumps(error).encode(), 403)(handler)

    with serving(echo) as server:
        answer = Prometheus(server.url, TIMEOUT, TOKEN + b"\n").query("up")
    assert server.requests[0][1]["Authorization"] == f"Bearer {TOKEN.decode()}"
    assert "403: who is" in answer.said
    assert TOKEN.decode() not in answer.said


def test_a_token_that_no_header_can_hold_is_a_reason() -> None:
    answer = asked(saying(b""), token=b"first\r\nX-Second: line")
    assert answer.said.endswith(": its token holds a character that HTTP does not allow")


def test_the_surroundings_do_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serving(saying(result("scalar", [0, "1"]))) as server:
        assert Prometheus(server.url, TIMEOUT).query("up").value == 1
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with serving(saying(result("scalar", [0, "1"]))) as other:
        location = other.url.replace("//", "//name:password@") + "/here?token=x"
        answer = asked(saying(b"", status, Location=location), token=TOKEN)
        assert other.requests == []
    said = f"it redirects to {other.url}/here: set the address that it redirects to"
    assert (answer.value, answer.said.partition(": ")[2]) == (None, said)


# Bounds


@pytest.mark.parametrize("declared", [True, False], ids=["of declared length", "endless"])
def test_a_huge_answer_is_left(declared: bool) -> None:
    def flood(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"Content-Length: 99999999999\r\n" * declared + b"\r\n")
        while True:
            handler.wfile.write(b" " * 65_536)

    assert f"its answer is longer than {MAX_ANSWER:,} bytes" in asked(flood).said


def test_an_answer_of_the_largest_size_is_read() -> None:
    body = result("scalar", [0, "1"])
    assert asked(saying(body + b" " * (MAX_ANSWER - len(body)))) == Answer(1.0)
    assert asked(saying(body + b" " * (MAX_ANSWER - len(body) + 1))).value is None


def test_a_compressed_answer_is_not_unpacked() -> None:
    with serving(saying(gzip.compress(b" " * 10**7), Content_Encoding="gzip")) as server:
        assert "not one of a Prometheus" in Prometheus(server.url, TIMEOUT).query("up").said
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"", b""),
        (HEAD, b"a"),
        (HEAD, b"A: b\r\n"),
        (HEAD + b"Content-Length: 1000000\r\n\r\n", b" "),
        (HEAD + b"\r\n" + result("scalar", [0, "1"]), b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
    ids=["silence", "a header", "headers", "a body", "an endless body", "chunks", "a length of a chunk"],
)
def test_a_server_that_drips_cannot_hold_a_query(begin: bytes, drop: bytes) -> None:
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(begin)
        # Slow enough that no count of headers is reached before the deadline.
        while not stop.wait(0.02):
            handler.wfile.write(drop)

    with serving(drip) as server:
        answer = Prometheus(server.url, SHORT).query("up")
        stop.set()
    assert (answer.value, answer.said.partition(": ")[2]) == (None, f"no complete answer within {SHORT} s")


def test_a_tls_handshake_that_drips_cannot_hold_a_query() -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"\x16\x03\x03\x40\x00")
                    while not stop.wait(0.02):
                        connection.sendall(b"\x02")
                except OSError:
                    return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        answer = Prometheus(f"https://127.0.0.1:{listener.getsockname()[1]}", SHORT).query("up")
        stop.set()
        thread.join(60)
    assert f"no complete answer within {SHORT} s" in answer.said


# TLS


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers(tmp_path_factory.mktemp("papers"), "server")[0]


def test_an_authority_of_the_operator_is_trusted_and_no_other(owner: Papers) -> None:
    with serving(saying(result("scalar", [0, "1"])), owner) as server:
        assert Prometheus(server.url, TIMEOUT, authority=owner.ca).query("up") == Answer(1.0)
        answer = Prometheus(server.url, TIMEOUT, TOKEN).query("up")
    assert answer.said.endswith(": its certificate was not accepted, or it does not speak TLS")
    assert len(server.requests) == 1


def test_a_server_that_drips_by_tls_cannot_hold_a_query(owner: Papers) -> None:
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stop.wait(0.02):
            handler.wfile.write(b" ")

    with serving(drip, owner) as server:
        answer = Prometheus(server.url, SHORT, authority=owner.ca).query("up")
        stop.set()
    assert answer.said.endswith(f": no complete answer within {SHORT} s")


def test_an_authority_that_is_not_there_is_a_reason(tmp_path: Path) -> None:
    answer = Prometheus("https://127.0.0.1:1", TIMEOUT, authority=tmp_path / "ca.pem").query("up")
    assert answer.said.endswith(f": the file of its authority, {tmp_path / 'ca.pem'}, cannot be read")


# Trouble


def test_a_server_that_is_down_is_a_reason() -> None:
    port = free_port()
    answer = Prometheus(f"http://user:word@127.0.0.1:{port}", TIMEOUT).query("up")
    assert answer == Answer(None, f"Prometheus http://127.0.0.1:{port}: connection refused")


@pytest.mark.parametrize(
    "bytes_",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", HEAD + b"a" * 70_000],
    ids=["nothing", "another protocol", "a torn body", "a long header"],
)
def test_an_answer_that_is_no_http_is_a_reason(bytes_: bytes) -> None:
    answer = asked(lambda handler: handler.wfile.write(bytes_) and None)
    assert (answer.value, answer.said.partition(": ")[2]) == (None, "it cannot be reached, or does not speak HTTP")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:9090", "its address has to begin with http:// or https://"),
        ("ftp://127.0.0.1", "its address has to begin with http:// or https://"),
        ("http://", "its address cannot be read"),
        ("http://[::1", "its address cannot be read"),
    ],
)
def test_an_address_that_cannot_be_used_is_a_reason(url: str, said: str) -> None:
    answer = Prometheus(url, TIMEOUT).query("up")
    assert answer.value is None
    assert answer.said.endswith(said)


def test_plain_http_where_tls_was_expected_is_a_reason() -> None:
    with serving(saying(b"")) as server:
        answer = Prometheus(server.url.replace("http", "https"), TIMEOUT).query("up")
    assert answer.said.endswith(": its certificate was not accepted, or it does not speak TLS")


def test_closing_ends_a_query_under_way_and_those_to_come() -> None:
    begun, stop = threading.Event(), threading.Event()

    def hold(_: BaseHTTPRequestHandler) -> None:
        begun.set()
        stop.wait(60)

    answers: list[Answer] = []
    with serving(hold) as server:
        prometheus = Prometheus(server.url, 600)
        thread = threading.Thread(target=lambda: answers.append(prometheus.query("up")), daemon=True)
        thread.start()
        assert begun.wait(60)
        prometheus.close()
        thread.join(60)
        stop.set()
    answers.append(prometheus.query("up"))
    assert [answer.said.partition(": ")[2] for answer in answers] == ["it is not asked any more"] * 2
    assert len(server.requests) == 1
