"""What the API shows, over the real server and the real journal, and what it says when something is asked wrongly."""

import http.client
import json
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.core import render
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.record import What
from reconciler.web.api import PAGE_BYTES
from reconciler.web.serve import Server
from tests.support.webhouse import TOKEN, entry, running, status
from tools.ports import free_port

ENVIRONMENT = "github-production"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("house")) as it:
        yield it


@pytest.fixture
def fresh(tmp_path):
    with running(tmp_path) as it:
        yield it


def test_environments_show_before_and_after_their_first_look(fresh):
    first = fresh.client.get("/api/v1/environments").json()["environments"]
    assert len(first) == 16
    assert all(environment["status"] is None for environment in first)
    fresh.board.publish(status(ENVIRONMENT))
    shown = {e["name"]: e for e in fresh.client.get("/api/v1/environments").json()["environments"]}[ENVIRONMENT]
    assert (shown["repository"], shown["ref"], shown["status"]["inSync"]) == ("github", "main", True)
    assert shown["status"]["services"]["web0"]["health"] == "Healthy"
    assert "plan" not in shown["status"]


def test_one_environment_and_its_plan(house):
    it = status(ENVIRONMENT, services=3)
    house.board.publish(it)
    assert house.client.get(f"/api/v1/environments/{ENVIRONMENT}").json() == render.environment_status(it)
    assert house.client.get(f"/api/v1/environments/{ENVIRONMENT}/plan").json() == render.plan(it.plan)


def test_what_is_not_there_is_said(house):
    for path, said in (
        ("/api/v1/environments/nobody", "there is no environment nobody"),
        ("/api/v1/environments/nobody/plan", "there is no environment nobody"),
        ("/api/v1/environments/gogs-staging", "no status yet"),
        ("/api/v1/environments/gogs-staging/plan", "no status yet"),
        ("/api/v1/records/999999", "there is no record 999999"),
        ("/api/v1/records/x", "there is no record x"),
        ("/api/v1/records/0", "there is no record 0"),
        ("/api/v1/records/-1", "there is no record -1"),
        ("/api/v1/nothing", "not found"),
    ):
        answer = house.client.get(path)
        assert answer.status_code == 404
        assert said in answer.json()["error"]


def test_a_status_without_a_plan_says_why(house):
    house.board.publish(status("gogs-production", plan=None, reason=Reason.BRANCH_MISSING, message="main is gone"))
    answer = house.client.get("/api/v1/environments/gogs-production/plan")
    assert answer.status_code == 404
    assert "main is gone" in answer.json()["error"]


def test_a_look_can_be_asked_for(house):
    answer = house.client.post(f"/api/v1/environments/{ENVIRONMENT}/reconcile")
    assert (answer.status_code, answer.json()) == (202, {"environment": ENVIRONMENT, "requested": True})
    name, causes = house.inbox.take(0)
    house.inbox.done(name)
    assert (name, [(cause.kind, cause.git) for cause in causes]) == (ENVIRONMENT, [("api", True)])
    assert house.client.post("/api/v1/environments/nobody/reconcile").status_code == 404
    assert house.inbox.take(0) is None


def test_records_come_in_pages(fresh):
    before = [record.index for record in fresh.journal.records()]
    fresh.journal.append(*(entry(number) for number in range(250)))
    found, after, pages = [], 0, 0
    while after is not None:
        page = fresh.client.get("/api/v1/records", params={"after": after, "limit": 100}).json()
        found += [record["index"] for record in page["records"]]
        after, pages = page["next"], pages + 1
    assert found == list(range(1, len(before) + 251))
    assert pages == 3
    assert len(fresh.client.get("/api/v1/records").json()["records"]) == 100
    whole = fresh.client.get("/api/v1/records", params={"limit": 1000}).json()
    assert (len(whole["records"]), whole["next"]) == (len(found), None)


def test_records_can_be_filtered_and_read_one_by_one(fresh):
    made = fresh.journal.append(entry(1), entry(2, service="api"), entry(3, environment="gogs-staging"))
    by = {"environment": ENVIRONMENT, "service": "api"}
    shown = fresh.client.get("/api/v1/records", params=by).json()["records"]
    assert [record["index"] for record in shown] == [made[1].index]
    assert fresh.client.get(f"/api/v1/records/{made[2].index}").json() == render.record(made[2])
    assert fresh.client.get("/api/v1/records", params={"environment": "unknown"}).json() == {
        "records": [],
        "next": None,
    }


def test_a_page_is_bounded_in_bytes_too(fresh):
    evidence = {"logs": ["x" * 40_000]}
    fresh.journal.append(*(entry(number, details=evidence) for number in range(200)))
    page = fresh.client.get("/api/v1/records", params={"limit": 1000})
    assert len(page.content) < PAGE_BYTES + 200_000
    assert page.json()["next"] == page.json()["records"][-1]["index"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=%D9%A1",
        "after=-1",
        "after=1e3",
        "after=99999999999999999999",
        "enviroment=x",
        "environment=A%00",
        "environment=../x",
        "service=" + "a" * 64,
        "limit=1&limit=2",
    ],
)
def test_a_wrong_question_gets_no_wide_answer(house, query):
    answer = house.client.get(f"/api/v1/records?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_routes_without_parameters_take_none(house):
    for path in ("/environments", f"/environments/{ENVIRONMENT}", f"/environments/{ENVIRONMENT}/plan", "/openapi.json"):
        assert house.client.get(f"/api/v1{path}?x=1").status_code == 400


def test_a_journal_that_cannot_be_read_is_said(tmp_path):
    with running(tmp_path) as it:
        it.journal.close()

        class Unreadable:
            def records(self, **_):
                raise Retryable(Reason.JOURNAL_UNAVAILABLE, "the disk is full", where="journal", remedy="Make room")

        broken = replace(it.house, journal=Unreadable())
        with serving(broken) as (client, _):
            answer = client.get("/api/v1/records")
            assert answer.status_code == 503
            assert answer.json()["error"] == "journal: the disk is full. Make room"


def test_our_own_bug_is_a_500_that_tells_nothing(tmp_path):
    with running(tmp_path) as it:

        def broken():
            raise ZeroDivisionError("secret details")

        with serving(replace(it.house, ready=broken)) as (client, _):
            answer = client.get("/readyz")
            assert answer.status_code == 500
            assert answer.json() == {"error": "an internal error", "remedy": "the daemon's log says more"}
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert client.get("/livez").status_code == 200


class serving:
    """A second server on the same house with something exchanged."""

    def __init__(self, house):
        from reconciler.web.app import create_app

        self.server = Server(create_app(house), "127.0.0.1", 0)

    def __enter__(self):
        import httpx

        self.server.start()
        base = f"http://127.0.0.1:{self.server.port}"
        self.client = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {TOKEN.decode()}"}, timeout=60)
        return self.client, self.server

    def __exit__(self, *_):
        self.client.close()
        self.server.stop()


def test_health_shows_each_check(fresh):
    fresh.live = {"loop": ""}
    fresh.ready = {"settings": "", "journal": "the disk is full", "first sync": ""}
    assert fresh.client.get("/livez").json() == {"ok": True, "leader": True, "checks": {"loop": "ok"}}
    answer = fresh.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"settings": "ok", "journal": "the disk is full", "first sync": "ok"}
    fresh.ready = {}
    assert fresh.client.get("/readyz").status_code == 200
    fresh.live = {"loop": "no heartbeat for 90 s"}
    assert fresh.client.get("/livez").status_code == 503


def test_metrics_are_prometheus_text(house):
    house.metrics.reconciles.labels(ENVIRONMENT, "ok").inc()
    answer = house.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "reconciler_reconcile" in {family.name for family in text_string_to_metric_families(answer.text)}


def test_half_a_character_in_a_status_can_be_shown(house):
    house.board.publish(status("gitea-production", message="half \ud800 character"))
    answer = house.client.get("/api/v1/environments/gitea-production")
    assert json.loads(answer.text)["message"] == "half \ud800 character"


def test_head_asks_for_everything_but_the_body(house):
    answer = house.client.head("/livez")
    assert (answer.status_code, answer.content) == (200, b"")


def test_an_address_that_is_taken_is_said_with_a_remedy(house):
    with pytest.raises(Stalled, match=r"http\.port"):
        Server(lambda *_: None, "127.0.0.1", house.port).start()
    with pytest.raises(Stalled, match=r"http\.host"):
        Server(lambda *_: None, "no.such.host.invalid", 0).start()


def test_the_port_is_free_again_after_stop(tmp_path):
    port = free_port()
    with running(tmp_path, port=port) as it:
        assert it.client.get("/livez").status_code == 200
    again = Server(it.house.webhook, "127.0.0.1", port)
    again.start()
    assert again.port == port
    again.stop()


def test_stopping_does_not_wait_for_idle_connections(tmp_path):
    with running(tmp_path) as it:
        sock = it.raw()
        sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.read()
    assert sock.recv(1) == b""
    sock.close()


def test_what_the_api_shows_is_in_the_journal(fresh):
    fresh.journal.append(entry(1, what=What.ROLLOUT_FAILED, reason="Unhealthy"))
    assert fresh.client.get("/api/v1/records").json()["records"][-1]["reason"] == "Unhealthy"
