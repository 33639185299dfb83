"""The configuration of an environment's HAProxy (2.6 and later), as text: values in, text out.

Nothing that comes from Git gets into the text unless it fits a strict grammar. No knowledge of instances: which
address is in which slot, its weight and its state are set at run time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from reconciler.core import names
from reconciler.core.delivery import Route, RouteMode

LATENCY_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Answers are counted by the first of these bounds that they do not exceed; what is slower counts as `inf`."""

DIRECTORY = "/reconciler"
"""What the proxy shares with the daemon: its configuration, its sockets, the saved state of its servers."""
CERTIFICATES = "/certificates"
HTTP_PORT, HTTPS_PORT, METRICS_PORT = 80, 443, 8405
"""Where the proxy listens inside its container."""
DIGEST_VARIABLE = "RECONCILER_CONFIG"
ENTRANCE = "http"
"""The frontend where all HTTP clients come in."""
ENTRY = "proxy"
"""The name under which instances reach the proxy in the private network."""

_MOST = 4096
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(_LABEL)
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_PATH = re.compile(r"(?=.{1,200}\Z)/(?:[A-Za-z0-9._~@:+=-]+/)*(?:[A-Za-z0-9._~@:+=-]+)?")
_LONGEST = timedelta(days=20)  # HAProxy counts milliseconds in 31 bits
_USUAL = timedelta(seconds=60)

_GLOBAL = f"""
    log stdout format raw local0
    stats socket {DIRECTORY}/admin.sock mode 600 level admin expose-fd listeners
    server-state-file {DIRECTORY}/server.state
    hard-stop-after 10m
    fd-hard-limit 50000
    ssl-default-bind-options ssl-min-ver TLSv1.2
"""
_WAKE = f"    lua-load-per-thread {DIRECTORY}/wake.lua\n"
_DEFAULTS = """
defaults
    log global
    mode http
    option dontlognull
    timeout connect 2s
    timeout http-request 10s
    timeout http-keep-alive 9s
    timeout client-fin 30s
"""


@dataclass(frozen=True, slots=True)
class Front:
    """What the proxy shows outside. `tcp`: the ranges of ports, first and last, that services may listen at."""

    http: bool = True
    https: bool = False
    metrics: bool = False
    tcp: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RouteWish:
    """A service behind the proxy. `most`: how many instances may exist at once. `wake`: how long a request is kept
    while none is up; None: not at all. `shown`: without it there is a backend, and no request is led to it yet."""

    service: str
    route: Route
    most: int
    wake: timedelta | None = None
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration; `digest` is part of it, so that a running proxy can tell which one it has."""

    digest: str
    text: str


@dataclass(frozen=True, slots=True)
class _Claim:
    """A place that a service takes: requests for `host` ("" for any) below `path`."""

    host: str
    path: str
    backend: str

    @property
    def order(self) -> tuple[bool, bool, int, int, str, str]:
        """Exact hosts first, then the longest wildcard, then any host; among these the longest path."""
        return (not self.host, self.host.startswith("*"), -len(self.host.lstrip("*")), -len(self.path), *self.place)

    @property
    def place(self) -> tuple[str, str]:
        return self.host, self.path

    @property
    def condition(self) -> str:
        host = ""
        if self.host.startswith("*"):
            host = f"{{ var(txn.reconciler_host) -m end {self.host[1:]} }} "
        elif self.host:
            host = f"{{ var(txn.reconciler_host) -m str {self.host} }} "
        if self.path == "/":
            return f"if {host}".rstrip()
        return f"if {host}{{ path -m str {self.path} }} || {host}{{ path -m beg {self.path}/ }}"


def slots(most: int) -> int:
    """How many places a backend has when `most` instances may exist at once: old and new ones together, and spare."""
    return max(16, 1 << (2 * most - 1).bit_length())


def refusal(wish: RouteWish) -> str:
    """Why this route cannot be in any configuration, in words that name the value; "" when it can."""
    try:
        _checked(wish)
    except ValueError as error:
        return str(error)
    return ""


def settled(
    environment: str, front: Front, routes: Mapping[str, RouteWish], seniority: Sequence[str]
) -> tuple[dict[str, RouteWish], dict[str, str]]:
    """The routes, with those not shown that claim what one before them in `seniority` has; and why, by service.

    Every route has to be there in `seniority`, and to have no `refusal`.
    """
    taken: dict[tuple[str, str], str] = {}
    found, why = {}, {}
    for service in seniority:
        wish = routes[service]
        places = _places(environment, wish)
        clash = next((place for place in places if place in taken), None)
        port = wish.route.listen if wish.shown and wish.route.mode is RouteMode.TCP else None
        if clash is not None:
            why[service] = f"{_told(clash)} belongs to service {taken[clash]} already"
        elif port is not None and not any(first <= port <= last for first, last in front.tcp):
            why[service] = f"port {port} is not among those that the operator lets services listen at"
        if service in why:
            wish = replace(wish, shown=False)
        else:
            taken |= dict.fromkeys(places, service)
        found[service] = wish
    return found, why


def render(environment: str, front: Front, routes: Mapping[str, RouteWish]) -> Config:
    """The configuration of the environment's proxy. `routes` are by service.

    A request belongs to the service whose host fits best (exact, then the longest wildcard, then any), and there to
    the longest path prefix of whole segments. Raises ValueError for a value that is outside the grammar, for two
    services that claim the same place, and for a port outside the ranges: it names the service.
    """
    wishes = _wishes(environment, routes)
    parts = [*_frontends(environment, front, wishes), *(_service(environment, wish) for wish in wishes)]
    kept = _WAKE if any(wish.wake is not None for wish in wishes) else ""
    body = "\n".join([f"{_GLOBAL}{kept}{_DEFAULTS}", *parts])
    digest = hashlib.sha256(body.encode()).hexdigest()
    return Config(digest, f"global\n    setenv {DIGEST_VARIABLE} {digest}{body}")


def fragment(environment: str, routes: Mapping[str, RouteWish]) -> str:
    """The backends alone, for an operator's own proxy. Raises ValueError as `render` does."""
    wishes = _wishes(environment, routes)
    kept = any(wish.wake is not None for wish in wishes)
    head = [f"# Backends of the environment {environment} for your own proxy: route requests to them as you like."]
    head.append("# global needs: stats socket … level admin; server-state-file, the file that Reconciler saves there")
    if kept:
        head.append("# and, for services that sleep: lua-load-per-thread …/wake.lua")
    return "\n".join([*head, "", *(_service(environment, wish) for wish in wishes)])


def _wishes(environment: str, routes: Mapping[str, RouteWish]) -> list[RouteWish]:
    _must(_NAME.fullmatch(environment), "environment", environment)
    found = [_checked(routes[service]) for service in sorted(routes)]
    taken: dict[tuple[str, str], str] = {}
    for wish in found:
        for place in _places(environment, wish):
            if place in taken:
                raise ValueError(f"service {wish.service}: {_told(place)} belongs to service {taken[place]} already")
            taken[place] = wish.service
    return found


def _places(environment: str, wish: RouteWish) -> Sequence[tuple[str, str]]:
    """What a service claims for itself: hosts with paths, or a port for TCP."""
    if wish.shown and wish.route.mode is RouteMode.TCP:
        return [("tcp:", str(wish.route.listen))]
    return list(dict.fromkeys(claim.place for claim in _claims(environment, wish)))


def _told(place: tuple[str, str]) -> str:
    return f"port {place[1]}" if place[0] == "tcp:" else f"{place[0] or 'any host'}{place[1]}"


def _checked(wish: RouteWish) -> RouteWish:
    route = wish.route
    times = (route.timeout, wish.wake if wish.wake is not None else _USUAL)
    _must(_NAME.fullmatch(wish.service), "service", wish.service)
    place = f"service {wish.service}: "
    _must(0 < wish.most <= _MOST, f"{place}number of instances", wish.most)
    _must(all(timedelta(milliseconds=1) <= time <= _LONGEST for time in times), f"{place}timeout", max(times))
    _must(route.max_connections is None or route.max_connections > 0, f"{place}maximum", route.max_connections)
    if route.mode is RouteMode.TCP:
        _must(route.listen is not None and 0 < route.listen < 65536, f"{place}port to listen at", route.listen)
        _must(not route.hosts and not route.preview, f"{place}host of a TCP route", (*route.hosts, route.preview))
        return wish
    _must(route.paths, f"{place}list of paths", route.paths)
    for host in (*route.hosts, *([route.preview] if route.preview else [])):
        _must(_HOST.fullmatch(host.lower()) and host.isascii(), f"{place}host", host)
    _must(not route.preview.startswith("*"), f"{place}preview host", route.preview)
    for path in route.paths:
        dotted = {".", ".."}.intersection(path.split("/"))
        _must(_PATH.fullmatch(path) and not dotted, f"{place}path", path)
    return wish


def _must(condition: object, what: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{what} not usable in the proxy: {str(value)[:100]!r}")


def _claims(environment: str, wish: RouteWish) -> Iterator[_Claim]:
    route, backend = wish.route, names.backend(environment, wish.service)
    if route.mode is RouteMode.TCP or not wish.shown:
        return
    for host in route.hosts or ("",):
        for path in route.paths:
            yield _Claim(host.lower(), path.rstrip("/") or "/", backend)
    if route.preview:
        yield _Claim(route.preview.lower(), "/", names.backend(environment, wish.service, preview=True))


def _frontends(environment: str, front: Front, wishes: list[RouteWish]) -> Iterator[str]:
    longest = max([_USUAL, *(wish.route.timeout for wish in wishes)])
    claims = {claim for wish in wishes for claim in _claims(environment, wish)}
    if front.http or front.https:
        yield _lines(
            f"frontend {ENTRANCE}",
            f"bind :{HTTP_PORT}" if front.http else "",
            f"bind :{HTTPS_PORT} ssl crt {CERTIFICATES} alpn h2,http/1.1" if front.https else "",
            "option httplog",
            "option forwardfor",
            "option idle-close-on-response",
            f"timeout client {_time(longest)}",
            "http-request set-var(txn.reconciler_host) req.hdr(host),host_only,lower,rtrim(.)",
            "http-request set-header X-Forwarded-Proto http unless { ssl_fc }",
            "http-request set-header X-Forwarded-Proto https if { ssl_fc }",
            *(_use(claim) for claim in sorted(claims, key=lambda claim: claim.order)),
            "default_backend unknown",
        )
        yield _lines("backend unknown", 'http-request return status 404 content-type text/plain string "no such place"')
    if front.metrics:
        yield _lines(
            "frontend metrics",
            f"bind :{METRICS_PORT}",
            "timeout client 10s",
            "no log",
            "http-request use-service prometheus-exporter if { path /metrics }",
            "http-request return status 404",
        )
    taken = {HTTP_PORT: front.http, HTTPS_PORT: front.https, METRICS_PORT: front.metrics}
    for wish in wishes:
        if wish.route.mode is RouteMode.TCP and wish.shown:
            yield _tcp_frontend(environment, front, wish, lambda port: taken.get(port, False))


def _use(claim: _Claim) -> str:
    return f"use_backend {claim.backend} {claim.condition}".removesuffix(" if")


def _tcp_frontend(environment: str, front: Front, wish: RouteWish, taken: Callable[[int], bool]) -> str:
    port = wish.route.listen or 0
    within = any(first <= port <= last for first, last in front.tcp)
    _must(within and not taken(port), f"service {wish.service}: port to listen at", port)
    return _lines(
        f"frontend tcp.{port}",
        "mode tcp",
        f"bind :{port}",
        "option tcplog",
        f"timeout client {_time(max(_USUAL, wish.route.timeout))}",
        f"default_backend {names.backend(environment, wish.service)}",
    )


def _service(environment: str, wish: RouteWish) -> str:
    """The service's backends. The preview shows a version that is there: it waits for none."""
    text = _backend(names.backend(environment, wish.service), wish, wish.wake)
    if wish.route.preview:
        text += "\n" + _backend(names.backend(environment, wish.service, preview=True), wish, None)
    return text


def _backend(name: str, wish: RouteWish, wake: timedelta | None) -> str:
    route, count = wish.route, slots(wish.most)
    http = route.mode is RouteMode.HTTP
    limit = f" maxconn {route.max_connections}" if route.max_connections is not None else ""
    # Only a server with a name (which is never looked up) gets its address back from the saved state. Nothing cuts a
    # session only because its server goes down.
    slot = f"server-template s 1-{count} slot.invalid:1 init-addr last,0.0.0.0"
    # A new address takes nothing from the others before its first check, which comes within `inter`.
    servers = f"{slot} check inter 200ms fall 5 rise 1 pool-purge-delay 2s{limit} weight 1 disabled"
    return _lines(
        f"backend {name}",
        f"mode {route.mode.value}",
        "balance roundrobin",
        "retries 0",
        "timeout connect 2s",
        f"timeout server {_time(route.timeout)}",
        f"timeout queue {_time(route.timeout)}",
        "timeout tunnel 1h",
        "timeout server-fin 30s",
        "load-server-state-from-file global",
        *_waiting(name, wake, http=http),
        *(_sticky(name, wish.service) if route.sticky and http else ()),
        *(_latency(count) if http else ()),
        servers,
    )


def _waiting(name: str, wake: timedelta | None, *, http: bool) -> Iterator[str]:
    if wake is None:
        return
    action = f"lua.reconciler_wake {name} {_milliseconds(wake)} if {{ nbsrv lt 1 }}"
    if http:
        yield f"http-request {action}"
    else:
        # Within this time the rule may wait; when it ends, the rule must not wait any more.
        yield f"tcp-request inspect-delay {_time(wake + timedelta(seconds=1))}"
        yield f"tcp-request content {action}"


def _sticky(name: str, service: str) -> Iterator[str]:
    """A slot's cookie follows its address, so that a client never lands on a stranger in the same slot."""
    yield f"cookie rec-{service} insert indirect nocache httponly dynamic"
    yield f"dynamic-cookie-key {hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _latency(count: int) -> Iterator[str]:
    """Counts answers by how long they took from the request to the headers of the answer, for each slot.

    The key is `slot/bound`; only the first rule that fits has an effect, as a stream is tracked only once.
    """
    yield f"stick-table type string len 16 size {count * (len(LATENCY_BOUNDS_MS) + 1)} store gpc0"
    yield "http-request set-var(txn.reconciler_start) date(0,us)"
    yield "http-response set-var(txn.reconciler_took) date(0,us),sub(txn.reconciler_start)"
    for bound in LATENCY_BOUNDS_MS:
        fits = f"{{ var(txn.reconciler_took) -m int le {bound * 1000} }}"
        yield f"http-response track-sc0 srv_name,concat(/{bound}) if {fits}"
    yield "http-response track-sc0 srv_name,concat(/inf)"
    yield "http-response sc-inc-gpc0(0)"


def _lines(head: str, *lines: str) -> str:
    return "\n    ".join([head, *filter(None, lines)]) + "\n"


def _time(value: timedelta) -> str:
    return f"{_milliseconds(value)}ms"


def _milliseconds(value: timedelta) -> int:
    return value // timedelta(milliseconds=1)
