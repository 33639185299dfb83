"""The proxy's configuration: who gets which request, how many slots there are, and that no value is a directive."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.delivery import Route, RouteMode
from reconciler.core.proxy_config import (
    LATENCY_BOUNDS_MS,
    Config,
    Front,
    RouteWish,
    fragment,
    refusal,
    render,
    settled,
    slots,
)

EVERYTHING = Front(http=True, https=True, metrics=True, tcp=((5000, 5999), (80, 80), (8405, 8405)))
WEB = RouteWish("web", Route(8080, hosts=("shop.example.org",)), most=3)
DATABASE = RouteWish("db", Route(5432, RouteMode.TCP, listen=5432), most=1)


def rendered(*wishes: RouteWish, front: Front = EVERYTHING) -> Config:
    return render("prod", front, {wish.service: wish for wish in wishes})


def section(text: str, head: str) -> list[str]:
    """The lines of one section."""
    body = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    found = [part for part in body if part.split("\n")[0] == head]
    assert len(found) == 1, f"{head}: {len(found)}"
    return [line.strip() for line in found[0].splitlines()[1:] if line.strip()]


def uses(config: Config) -> list[str]:
    return [line for line in section(config.text, "frontend http") if line.startswith("use_backend")]


def test_the_digest_stands_in_the_text_and_changes_with_it() -> None:
    one, same, other = rendered(WEB), rendered(WEB), rendered(replace(WEB, most=20))
    assert one == same
    assert one.digest != other.digest
    assert section(one.text, "global")[0] == f"setenv RECONCILER_CONFIG {one.digest}"


@pytest.mark.parametrize(("most", "count"), [(1, 16), (8, 16), (9, 32), (16, 32), (17, 64), (100, 256)])
def test_slots_are_a_power_of_two_with_room_for_old_and_new(most: int, count: int) -> None:
    assert slots(most) == count
    backend = section(rendered(replace(WEB, most=most)).text, "backend rec.prod.web")
    assert any(f" s 1-{count} " in f" {line} " for line in backend if line.startswith("server-template"))
    assert all(" check inter 200ms " in line for line in backend if line.startswith("server-template")), "soon proven"


def test_a_slot_can_get_its_address_back_from_the_saved_state() -> None:
    """HAProxy restores the address of a server with a name only; `disabled` keeps fresh slots out."""
    servers = section(rendered(WEB).text, "backend rec.prod.web")[-1]
    assert "slot.invalid:1 init-addr last,0.0.0.0" in servers
    assert servers.endswith("disabled")
    assert "on-marked-down" not in servers


def test_the_best_host_then_the_longest_path_decides() -> None:
    config = rendered(
        RouteWish("any", Route(80), 1),
        RouteWish("wild", Route(80, hosts=("*.example.org",)), 1),
        RouteWish("wilder", Route(80, hosts=("*.eu.example.org",)), 1),
        RouteWish("exact", Route(80, hosts=("a.example.org",), preview="next.example.org"), 1),
        RouteWish("deep", Route(80, hosts=("a.example.org",), paths=("/api/v2", "/api")), 1),
        RouteWish("anyapi", Route(80, paths=("/api/",)), 1),
    )
    host = "{ var(txn.reconciler_host) -m"
    assert uses(config) == [
        f"use_backend rec.prod.exact.preview if {host} str next.example.org }}",
        *(
            f"use_backend rec.prod.deep if {host} str a.example.org }} {{ path -m str {path} }} "
            f"|| {host} str a.example.org }} {{ path -m beg {path}/ }}"
            for path in ("/api/v2", "/api")
        ),
        f"use_backend rec.prod.exact if {host} str a.example.org }}",
        f"use_backend rec.prod.wilder if {host} end .eu.example.org }}",
        f"use_backend rec.prod.wild if {host} end .example.org }}",
        "use_backend rec.prod.anyapi if { path -m str /api } || { path -m beg /api/ }",
        "use_backend rec.prod.any",
    ]
    assert section(config.text, "frontend http")[-1] == "default_backend unknown"


def test_a_host_is_matched_in_lower_case() -> None:
    assert uses(rendered(replace(WEB, route=Route(80, hosts=("Shop.Example.ORG",)))))[0].endswith("shop.example.org }")


def test_only_what_the_operator_opened_is_there() -> None:
    text = rendered(WEB, front=Front(http=True)).text
    assert "bind :80" in text
    assert ":443" not in text
    assert "frontend metrics" not in text
    closed = rendered(WEB, front=Front(http=False)).text
    assert "bind :" not in closed
    assert "backend rec.prod.web" in closed
    both = rendered(WEB).text
    assert "bind :443 ssl crt /certificates alpn h2,http/1.1" in both
    assert "use-service prometheus-exporter" in both


def test_tcp_has_a_frontend_of_its_own_and_counts_no_answers() -> None:
    text = rendered(DATABASE).text
    assert section(text, "frontend tcp.5432")[-1] == "default_backend rec.prod.db"
    backend = section(text, "backend rec.prod.db")
    assert "mode tcp" in backend
    assert not any("stick-table" in line for line in backend)


def test_each_answer_is_counted_once_in_a_table_that_has_room_for_all_slots() -> None:
    backend = section(rendered(WEB).text, "backend rec.prod.web")
    keys = [line.split("concat(/")[1].split(")")[0] for line in backend if "track-sc0" in line]
    assert keys == [*map(str, LATENCY_BOUNDS_MS), "inf"]
    assert f"stick-table type string len 16 size {16 * 13} store gpc0" in backend


def test_what_a_route_asks_for() -> None:
    route = Route(80, sticky=True, max_connections=7, timeout=timedelta(minutes=5), preview="next.example.org")
    text = rendered(RouteWish("web", route, 1, wake=timedelta(seconds=30))).text
    backend, preview = section(text, "backend rec.prod.web"), section(text, "backend rec.prod.web.preview")
    assert "timeout server 300000ms" in backend
    assert "timeout client 300000ms" in section(text, "frontend http")
    assert " maxconn 7 " in backend[-1]
    assert any(line.startswith("cookie rec-web insert indirect nocache httponly dynamic") for line in backend)
    assert "http-request lua.reconciler_wake rec.prod.web 30000 if { nbsrv lt 1 }" in backend
    assert not any("wake" in line for line in preview), "a preview shows what is there"
    assert backend.index("http-request set-var(txn.reconciler_start) date(0,us)") > next(
        index for index, line in enumerate(backend) if "wake" in line
    ), "the wait for an instance is none of its own time"


def test_a_tcp_rule_may_wait_longer_than_the_service_may_sleep() -> None:
    text = rendered(replace(DATABASE, wake=timedelta(seconds=30), route=replace(DATABASE.route, sticky=True))).text
    backend = section(text, "backend rec.prod.db")
    assert "tcp-request inspect-delay 31000ms" in backend
    assert "tcp-request content lua.reconciler_wake rec.prod.db 30000 if { nbsrv lt 1 }" in backend
    assert not any(line.startswith("cookie") for line in backend)


def test_lua_is_loaded_only_where_something_sleeps() -> None:
    assert "lua" not in rendered(WEB).text
    assert "lua-load-per-thread" in rendered(replace(WEB, wake=timedelta(seconds=1))).text


def test_the_fragment_has_the_same_backends_and_nothing_else() -> None:
    asleep = replace(DATABASE, wake=timedelta(seconds=1))
    text = fragment("prod", {"web": WEB, "db": asleep})
    assert section(text, "backend rec.prod.web") == section(rendered(WEB).text, "backend rec.prod.web")
    heads = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert heads == ["backend rec.prod.db", "backend rec.prod.web"]
    assert "lua-load-per-thread" in text
    assert "lua" not in fragment("prod", {"web": WEB})


def changed(**values: object) -> RouteWish:
    return replace(WEB, route=replace(WEB.route, **values))  # type: ignore[arg-type]


HOSTILE = [
    changed(hosts=("a\n    stats socket /tmp/x level admin",)),
    changed(hosts=("a }\n",)),
    changed(hosts=("a.example.org\n",)),
    changed(hosts=("a b",)),
    changed(hosts=("*",)),
    changed(hosts=("a.*.org",)),
    changed(hosts=("-m",)),
    changed(hosts=("",)),
    changed(hosts=("\u212a.example.org",)),  # the sign for kelvin is a k in lower case
    changed(hosts=(".".join(["a" * 63] * 5),)),
    changed(preview="*.example.org"),
    changed(preview="a#b"),
    changed(paths=()),
    changed(paths=("",)),
    changed(paths=("api",)),
    changed(paths=("/a b",)),
    changed(paths=("/a\n",)),
    changed(paths=("/$HOME",)),
    changed(paths=('/"',)),
    changed(paths=("/'",)),
    changed(paths=("/a\\",)),
    changed(paths=("/a}",)),
    changed(paths=("/a#",)),
    changed(paths=("/../x",)),
    changed(paths=("//x",)),
    changed(paths=("/" + "a" * 200,)),
    changed(max_connections=0),
    changed(timeout=timedelta(0)),
    changed(timeout=timedelta(days=21)),
    replace(WEB, service="web\n"),
    replace(WEB, service="Web"),
    replace(WEB, most=0),
    replace(WEB, most=4097),
    replace(WEB, wake=timedelta(0)),
    replace(DATABASE, route=Route(5432, RouteMode.TCP)),
    replace(DATABASE, route=Route(5432, RouteMode.TCP, listen=0)),
    replace(DATABASE, route=Route(5432, RouteMode.TCP, listen=5432, hosts=("a",))),
    replace(DATABASE, route=Route(5432, RouteMode.TCP, listen=5432, preview="a")),
]


@pytest.mark.parametrize("wish", HOSTILE, ids=repr)
def test_what_is_outside_the_grammar_is_refused(wish: RouteWish) -> None:
    assert "not usable in the proxy" in refusal(wish)
    with pytest.raises(ValueError, match="not usable in the proxy"):
        rendered(wish)
    with pytest.raises(ValueError, match="not usable in the proxy"):
        fragment("prod", {wish.service: wish})


def test_a_good_route_is_not_refused() -> None:
    assert refusal(WEB) == refusal(DATABASE) == ""


def test_the_name_of_the_environment_is_checked_too() -> None:
    with pytest.raises(ValueError, match="environment"):
        render("prod\n", EVERYTHING, {})


@pytest.mark.parametrize("listen", [80, 443, 4999, 6000, 8405])
def test_a_port_that_is_not_opened_or_is_the_proxys_own_is_refused(listen: int) -> None:
    with pytest.raises(ValueError, match="service db: port to listen at"):
        rendered(replace(DATABASE, route=replace(DATABASE.route, listen=listen)))


def test_the_proxys_own_port_is_free_when_it_does_not_listen_there() -> None:
    wish = replace(DATABASE, route=replace(DATABASE.route, listen=80))
    assert "frontend tcp.80" in rendered(wish, front=Front(http=False, tcp=((80, 80),))).text


CLASHES = [
    (WEB, replace(WEB, service="other"), "shop.example.org/"),
    (WEB, RouteWish("x", Route(80, preview="Shop.example.org"), 1), "shop.example.org/"),
    (RouteWish("a", Route(80, paths=("/x",)), 1), RouteWish("b", Route(80, paths=("/x/",)), 1), "any host/x"),
    (DATABASE, replace(DATABASE, service="other"), "port 5432"),
]


@pytest.mark.parametrize(("one", "other", "place"), CLASHES)
def test_two_services_cannot_have_the_same_place(one: RouteWish, other: RouteWish, place: str) -> None:
    with pytest.raises(ValueError, match=re.escape(place)):
        rendered(one, other)


def test_a_service_may_name_a_place_twice() -> None:
    assert len(uses(rendered(changed(paths=("/x", "/x/"))))) == 1


DIRECTIVES = frozenset(
    line.split()[0]
    for line in rendered(
        replace(WEB, wake=timedelta(seconds=1), route=replace(WEB.route, sticky=True, preview="a.b")), DATABASE
    ).text.splitlines()
    if line.strip()
)
TEXTS = st.one_of(st.text(max_size=30), st.from_regex(r"[a-z*./ \n{}#$\"'-]{1,12}"))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "hosts": st.lists(TEXTS, max_size=3).map(tuple),
            "paths": st.lists(TEXTS.map(lambda text: "/" + text), min_size=1, max_size=3).map(tuple),
            "preview": TEXTS,
            "sticky": st.booleans(),
        },
    )
)
def test_no_value_becomes_a_directive(values: Mapping[str, object]) -> None:
    """Whatever is not refused adds words that were letters of its own, in lines that were there before."""
    wish = changed(**values)
    if refusal(wish):
        return
    config = rendered(wish)
    lines = [line for line in config.text.split("\n") if line.strip()]
    assert {line.split()[0] for line in lines} <= DIRECTIVES
    assert not re.search(r"[\"'\\#$\r\t\x00]", config.text.replace('"no such place"', ""))
    expected = len(wish.route.hosts or ("",)) * len(wish.route.paths) + bool(wish.route.preview)
    assert len(uses(config)) <= expected
    for line in uses(config):
        assert line.count("{") == line.count("}") <= 4


def test_a_service_that_is_not_shown_has_a_backend_that_nothing_leads_to() -> None:
    text = render(
        "prod",
        Front(tcp=((5000, 5001),)),
        {
            "web": RouteWish("web", Route(8080, hosts=("web.test",), preview="next.test"), 2, shown=False),
            "db": RouteWish("db", Route(5432, RouteMode.TCP, listen=5000), 1, shown=False),
        },
    ).text
    assert "backend rec.prod.web\n" in text and "backend rec.prod.db\n" in text
    assert "web.test" not in text and "next.test" not in text and "tcp.5000" not in text


def test_who_was_there_first_keeps_a_place() -> None:
    routes = {
        "old": RouteWish("old", Route(8080, hosts=("shop.test",)), 1),
        "new": RouteWish("new", Route(8080, hosts=("shop.test", "new.test")), 1),
        "other": RouteWish("other", Route(8080, hosts=("new.test",)), 1),
        "db": RouteWish("db", Route(5432, RouteMode.TCP, listen=5000), 1),
        "twin": RouteWish("twin", Route(5432, RouteMode.TCP, listen=5000), 1),
        "far": RouteWish("far", Route(5432, RouteMode.TCP, listen=6000), 1),
        "quiet": RouteWish("quiet", Route(5432, RouteMode.TCP, listen=6000), 1, shown=False),
    }
    front = Front(tcp=((5000, 5001),))
    kept, why = settled("prod", front, routes, ["old", "db", "new", "other", "twin", "far", "quiet"])
    assert [name for name, wish in kept.items() if wish.shown] == ["old", "db", "other"]
    assert why == {
        "new": "shop.test/ belongs to service old already",
        "twin": "port 5000 belongs to service db already",
        "far": "port 6000 is not among those that the operator lets services listen at",
    }
    assert "backend rec.prod.new\n" in render("prod", front, kept).text
