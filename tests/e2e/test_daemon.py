"""The daemon as a real program, with a real repository and a real engine: start, merge, suspend, reload, stop."""

from __future__ import annotations

import json
import signal

import docker
import pytest

from tests.e2e.running import House, Log


def caused_by(kind: str, line: Log) -> bool:
    """Whether it was among the reasons for a look: hints that come together are one look, and cost one line."""
    return kind in line["cause"].split(",")


def test_from_the_start_over_a_merge_to_the_stop(house: House, hello: dict[str, str], raw: docker.APIClient) -> None:
    house.write_settings(extra="log: {level: debug}")  # looks that change nothing are told, too
    first = house.release(hello["1.0"])
    with house.daemon() as daemon:
        daemon.told("READY=1")
        start = daemon.log("starting")
        assert start["epoch"] == 1
        assert "API " in start["engines"]["local"]
        assert any("http.tokenFile" in warning for warning in start["warnings"])
        daemon.synced(first)
        second = house.release(hello["2.0"])
        daemon.synced(second)
        daemon.log("reconciled", lambda line: line["revision"] == second[:12] and caused_by("file", line))
        assert [image.partition("@")[2] for image in house.images(raw)] == [hello["2.0"].partition("@")[2]] * 2
        other = house.command("run", "--once")
        assert other.returncode == 1
        assert f"another daemon (pid {daemon.process.pid}) acts on this journal" in other.stderr
        assert "Traceback" not in other.stderr
        assert daemon.stop() == 0
        daemon.told("STOPPING=1")
    assert len(house.images(raw)) == 2, "the instances run on"
    assert house.command("audit", "verify").returncode == 0


def test_a_person_suspends_and_resumes_while_the_daemon_runs(house: House, hello: dict[str, str]) -> None:
    house.write_settings(extra="log: {level: debug}")  # looks that change nothing are told, too
    first = house.release(hello["1.0"])
    with house.daemon() as daemon:
        daemon.synced(first)
        said = house.command("suspend", f"{house.environment}/web", "--why", "a fair")
        assert said.returncode == 0, said.stderr
        daemon.log("reconciled", lambda line: caused_by("operator", line))
        held = house.release(hello["2.0"])
        daemon.log("reconciled", lambda line: line["revision"] == held[:12])
        status = json.loads(house.command("status", "--json").stdout)[0]["plan"]["services"]["web"]
        assert (status["health"], status["reason"]) == ("Suspended", "Suspended")
        assert status["stable"]["image"].endswith(hello["1.0"].partition("@")[2])
        seen = len(daemon.logs)
        assert house.command("resume", f"{house.environment}/web").returncode == 0
        daemon.log("reconciled", lambda line: caused_by("operator", line), after=seen)
        daemon.log("reconciled", lambda line: line["result"] == "synced" and not line["services"], after=seen)
        status = json.loads(house.command("status", "--json").stdout)[0]["plan"]["services"]["web"]
        assert status["stable"]["image"].endswith(hello["2.0"].partition("@")[2])
        assert daemon.stop(signal.SIGINT) == 0


def test_a_reload_is_taken_on_whole_or_not_at_all(house: House, hello: dict[str, str], raw: docker.APIClient) -> None:
    first = house.release(hello["1.0"])
    with house.daemon() as daemon:
        daemon.synced(first)
        daemon.told("READY=1")
        house.write_settings(extra="concurrency: many")
        daemon.log("reload refused", lambda line: "many" in line["reason"])
        house.write_settings(extra="concurrency: 3")
        daemon.log("reload refused", lambda line: "concurrency needs a restart" in line["reason"])
        second = house.release(hello["2.0"])
        daemon.synced(second)
        house.environments.append(f"{house.owner}-b")
        third = house.release(hello["1.0"], house.environments[1])
        house.write_settings()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.told("RELOADING=1\nMONOTONIC_USEC=")
        daemon.told("READY=1")
        daemon.log("reloaded", lambda line: line["environments"] == house.environments)
        daemon.log(
            "reconciled",
            lambda line: line["environment"] == house.environments[1] and line["result"] == "synced",
        )
        daemon.synced(third)
        left = house.environments.pop()
        house.write_settings()
        daemon.log("environments left alone", lambda line: line["environments"] == [left])
        house.environments.append(left)
        assert len(house.images(raw, left)) == 2
        assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_rollout_that_was_interrupted_is_finished_by_the_next_start(
    house: House, hello: dict[str, str], raw: docker.APIClient, number: signal.Signals
) -> None:
    first = house.release(hello["1.0"])
    assert house.command("run", "--once").returncode == 0
    with house.daemon() as daemon:
        daemon.told("READY=1")
        second = house.release(hello["2.0"], env={"START_DELAY_MS": "1500"})
        daemon.log("reconciled", lambda line: line["revision"] == second[:12] and line["steps"] > 0)
        assert daemon.stop(number) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    assert first != second
    assert house.command("run", "--once").returncode == 0
    assert [image.partition("@")[2] for image in house.images(raw)] == [hello["2.0"].partition("@")[2]] * 2
    assert house.command("audit", "verify").returncode == 0


def test_plan_and_once_tell_by_their_exit_codes(house: House, hello: dict[str, str], raw: docker.APIClient) -> None:
    first = house.release(hello["1.0"])
    before = house.command("plan")
    assert before.returncode == 2, before.stderr
    assert "no journal yet" in before.stderr
    assert not (house.root / "data" / "journal.db").exists()
    assert house.images(raw) == []
    once = house.command("run", "--once")
    assert once.returncode == 0, once.stderr
    assert f"{house.environment}/web: Synced, Healthy" in once.stdout
    assert house.command("plan").returncode == 0
    assert "2/2" in house.command("status").stdout
    house.release(hello["2.0"])
    proposed = house.command("plan", "--json")
    assert proposed.returncode == 2
    assert json.loads(proposed.stdout)[0]["plan"]["inSync"] is False
    assert house.command("plan", "--ref", first).returncode == 0, "the old revision is what runs"
    wrong = house.command("plan", "--ref", "nowhere")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: ")
    house.release(
        hello["2.0"], env={"UNHEALTHY": "1"}, health={"exec": {"command": ["/hello", "check"]}, "startup": "2s"}
    )
    failed = house.command("run", "--once")
    assert failed.returncode == 1, "the version was rolled back, which is not what Git declares"
    assert "Quarantined" in failed.stdout
    assert [image.partition("@")[2] for image in house.images(raw)] == [hello["1.0"].partition("@")[2]] * 2
