"""What is read out of a HAProxy's answers, those of later versions with more columns too, and the order of commands."""

from __future__ import annotations

import pytest

from reconciler.adapters import haproxy_plan as plan
from reconciler.adapters.haproxy_count import Counts
from reconciler.adapters.haproxy_table import Place, latency, state_of, table
from reconciler.core.errors import Retryable
from reconciler.core.live import ServerMode
from reconciler.core.steps import Share

READY, DRAIN, MAINT = ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT
STATE = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_port{more}"
STAT = "# pxname,svname,qcur,scur,stot,econ,eresp,status,uweight,addr,hrsp_5xx,check_health,check_rise,check_fall{more}"
NEWER = (" srv_new srv_newer", " 1 -"), (",new,newer,", ',9,"a, ""quoted"" one",')


def answer(*, newer: bool, admin: int = 4, op: int = 2, address: str = "10.0.0.1", checks: str = "2,1,2") -> str:
    state, stat = NEWER if newer else (("", ""), ("", ""))
    return (
        f"1\n{STATE.format(more=state[0])}\n3 b 1 s1 {address} {op} {admin} 5 80{state[1]}\n\n"
        f"{STAT.format(more=stat[0])}\nb,s1,1,2,30,4,5,UP,5,{address}:80,6,{checks}{stat[1]}\n"
        f"b,BACKEND,0,3,31,0,0,UP,5,,7,,,{stat[1]}\n\n"
    )


@pytest.mark.parametrize("newer", [False, True])
def test_columns_that_are_not_known_do_no_harm(newer: bool) -> None:
    found = table(answer(newer=newer), "here")
    counts = {"requests": 30, "errors": 15}
    assert found.places == (Place("b", "s1", "10.0.0.1", 80, READY, 5, True, True, 3, counts),)
    assert (found.totals["b"].up, found.totals["b"].requests) == (True, 31)


@pytest.mark.parametrize(
    ("admin", "mode"),
    [
        (0, READY),
        (4, READY),
        (5, MAINT),
        (1, MAINT),
        (2, MAINT),
        (32, MAINT),
        (64, MAINT),
        (8, DRAIN),
        (12, DRAIN),
        (9, MAINT),
    ],
)
def test_the_bits_of_the_administrative_state(admin: int, mode: ServerMode) -> None:
    assert table(answer(newer=False, admin=admin), "here").places[0].mode is mode


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "-"])
def test_an_address_that_means_none(address: str) -> None:
    assert table(answer(newer=False, address=address), "here").places[0].address == ""


@pytest.mark.parametrize(("checks", "proven"), [("1,1,2", False), ("2,1,2", True), ("0,1,2", False), (",,", True)])
def test_a_check_that_has_not_run_yet_proves_nothing(checks: str, proven: bool) -> None:
    assert table(answer(newer=False, checks=checks), "here").places[0].proven is proven


@pytest.mark.parametrize(
    "column",
    ["be_name", "srv_addr", "srv_port", "srv_uweight", "srv_op_state", "srv_admin_state", "pxname", "scur", "stot"],
)
def test_a_column_that_is_needed_and_missing_is_an_error(column: str) -> None:
    with pytest.raises(Retryable) as caught:
        table(answer(newer=False).replace(column, "other"), "here")
    assert caught.value.where == "here"


def test_a_weight_beyond_256_is_an_error() -> None:
    with pytest.raises(Retryable, match="srv_uweight"):
        table(answer(newer=False).replace(" 5 80", " 257 80"), "here")


@pytest.mark.parametrize("shard", ["", " shard=0"])
def test_latency_buckets(shard: str) -> None:
    text = (
        "# table: b, type: string, size:1024, used:3\n"
        f"0x7f00: key=s1/10 use=0 exp=0{shard} gpc0=5\n0x7f01: key=s1/inf use=0 exp=0{shard} gpc0=1\n"
        f"0x7f02: key=other use=0 exp=0{shard} gpc0=9\n\n"
    )
    assert latency(text) == {("b", "s1"): {"10": 5, "inf": 1}}


def test_the_state_is_kept_as_the_proxy_reads_it() -> None:
    assert state_of(answer(newer=False), "here").split("\n")[0] == "1"
    assert state_of(answer(newer=False), "here").endswith(" 5 80\n")
    with pytest.raises(Retryable):
        state_of("nothing", "here")


def place(number: int, address: str = "", mode: ServerMode = MAINT, weight: int = 1, sessions: int = 0) -> Place:
    return Place("b", f"s{number}", address, 80, mode, weight, mode is not MAINT, True, sessions)


def share(address: str, mode: ServerMode = READY, weight: int = 100) -> Share:
    return Share(address, address, 80, mode, weight)


def test_new_ones_get_no_weight_while_others_carry() -> None:
    places = [place(1, "a", READY, 100), place(2)]
    slots = plan.assign(places, [share("a"), share("n")])
    assert plan.raising(places, slots).commands == (
        "set server b/s2 addr n port 80",
        "set server b/s2 weight 0",
        "set server b/s2 state ready",
    )
    alone = [place(1, "a", DRAIN, 100), place(2)]
    assert "set server b/s2 weight 100" in plan.raising(alone, plan.assign(alone, [share("n")])).commands


def test_weights_rise_before_others_fall_and_are_taken_away() -> None:
    places = [place(1, "a", READY, 100), place(2, "n", READY, 0), place(3, "x", READY, 9)]
    slots = plan.assign(places, [share("a", READY, 50), share("n", READY, 50)])
    assert plan.settling(places, slots) == (
        "set server b/s2 weight 50",
        "set server b/s1 weight 50",
        "set server b/s3 state maint",
    )


def test_empty_places_are_taken_before_those_that_were_left() -> None:
    places = [place(1, "left"), place(2, "busy", sessions=1), place(3)]
    assert set(plan.assign(places, [share("n")])) == {"s3"}
    assert set(plan.assign(places, [share("n"), share("m")])) == {"s1", "s3"}
    with pytest.raises(plan.Full):
        plan.assign(places, [share("n"), share("m"), share("o")])


def test_an_address_in_two_places_keeps_the_one_that_is_used() -> None:
    places = [place(1, "a"), place(2, "a", READY, 100, sessions=2)]
    slots = plan.assign(places, [share("a")])
    assert set(slots) == {"s2"}
    assert plan.freeing(places, slots) == ("set server b/s1 addr 0.0.0.0",)


def test_a_rate_forgets_what_is_long_ago() -> None:
    counts = Counts()
    for second in range(20):
        counts.seen("p", "b", min(second, 10) * 100, float(second))
    assert counts.rate("p", "b") == 0
    counts.seen("p", "b", 1500, 20.0)
    assert counts.rate("p", "b") == pytest.approx(100)


def test_one_that_had_traffic_and_is_down_keeps_nobody_waiting() -> None:
    down = Place("b", "s1", "10.0.0.1", 80, ServerMode.READY, 100, up=False, proven=False, sessions=0)
    new = Place("b", "s2", "", 1, ServerMode.MAINT, 0, up=False, proven=False, sessions=0)
    shares = [share(name, weight=50) for name in ("10.0.0.1", "10.0.0.2")]
    slots = plan.assign([down, new], shares)
    raised = plan.raising([down, new], slots)
    assert raised.raised == {("10.0.0.2", 80)}
    waiting = plan.not_up([down, new], slots, raised.raised, raised.unproven)
    assert [share.name for share in waiting] == ["10.0.0.2"]
