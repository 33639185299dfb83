"""The redactor: no secret gets out in any form, nothing else is lost, and no input breaks or slows it."""

import base64
import json
import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.redact import HIDDEN, ITEMS_LIMIT, TEXT_LIMIT, Redactor

SECRET = 's3cr"et/with spaces'
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAAB3NzaC1yc2E\nq9z8\n-----END OPENSSH PRIVATE KEY-----"


@pytest.fixture
def redactor():
    return Redactor([SECRET, b"as-bytes-too\n", "hunter2"])


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"before {SECRET} after",
        quote(SECRET, safe=""),
        json.dumps({"password": SECRET}),
        base64.b64encode(SECRET.encode()).decode(),
        "as-bytes-too",
        "hunter2hunter2",
    ],
)
def test_a_known_value_vanishes_in_every_form(redactor, text):
    shown = redactor.text(text)
    assert HIDDEN in shown
    for part in (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode(), "hunter2", "as-bytes"):
        assert part not in shown


@pytest.mark.parametrize(
    ("text", "gone", "kept"),
    [
        ("fatal: https://bob:pw123@git.test/x.git failed", "pw123", "git.test/x.git failed"),
        ("ssh://tok3n@git.test/x", "tok3n", "git.test"),
        ("postgresql+psycopg://u:pass@db/x", "pass", "postgresql+psycopg://"),
        ("Authorization: Basic dXNlcjpwdw==", "dXNlcjpwdw", "Authorization"),
        ("'authorization': 'Bearer abc.def.ghi'", "abc.def", "authorization"),
        ("Proxy-Authorization=token ghp_12345678", "ghp_", "Proxy-Authorization"),
        ("sent Bearer eyJhbGciOiJIUzI1NiJ9.x.y to it", "eyJhbG", "to it"),
        (f"key: {PEM} end", "AAAAB3", "end"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIcut", "MIIcut", ""),
    ],
)
def test_secrets_are_known_by_their_shape(redactor, text, gone, kept):
    shown = redactor.text(text)
    assert gone not in shown
    assert kept in shown
    assert HIDDEN in shown


@pytest.mark.parametrize(
    "text",
    [
        "https://git.test/acme/fleet.git",
        "git@github.com:acme/fleet.git",
        "author A <a@x.test>",
        "registry.test/web:1@sha256:" + "a" * 64,
        "the basic idea",
        "-----BEGIN CERTIFICATE-----",
        "Stalled: a person is needed",
    ],
)
def test_other_text_stays_as_it_is(redactor, text):
    assert redactor.text(text) == text


def test_short_secrets_would_make_everything_unreadable():
    assert Redactor(["a", "", "  ", b"abc"]).text("abc a cab") == "abc a cab"


def test_the_longer_secret_vanishes_whole():
    assert Redactor(["pass", "password-extended"]).text("password-extended") == HIDDEN


def test_secrets_can_be_added_later(redactor):
    assert redactor.text("rotated-value") == "rotated-value"
    redactor.add("rotated-value")
    assert redactor.text("rotated-value") == HIDDEN
    assert redactor.text(SECRET) == HIDDEN


def test_a_key_given_as_a_value_vanishes_line_by_line():
    key = "-----BEGIN X-----\nAAAAB3NzaC1yc2EAAAADAQABAAAB\nshort\n"
    assert "AAAAB3" not in Redactor([key]).text("line AAAAB3NzaC1yc2EAAAADAQABAAAB alone")


def test_nested_data_is_walked(redactor):
    shown = redactor.data({"hunter2": [1, None, True, ("x", {"a": f"is {SECRET}"})], "e": ValueError("hunter2")})
    assert shown == {HIDDEN: [1, None, True, ["x", {"a": f"is {HIDDEN}"}]], "e": HIDDEN}


def test_depth_is_bounded(redactor):
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert "…" in json.dumps(redactor.data(deep), ensure_ascii=False)


def test_exceptions_are_one_clean_line(redactor):
    assert redactor.exception(ValueError(f"no: {SECRET}")) == f"ValueError: no: {HIDDEN}"


class Broken:
    def __str__(self):
        raise RuntimeError("hunter2")


def test_a_broken_value_does_not_stop_what_wants_to_leave(redactor):
    assert redactor.data({"x": Broken()}) == {"x": "<Broken: RuntimeError>"}


def test_as_a_processor_fields_are_bounded_and_clean(redactor):
    event = redactor(
        logging.getLogger(),
        "info",
        {
            "event": f"hello {SECRET}\x1b[31m\r\u202e",
            "long": "x" * 100_000,
            "many": list(range(100_000)),
            "wide": {str(i): i for i in range(100_000)},
            "token": "anything",
            "git_token": b"anything",
            "password": "",
            "tokens": 3,
            "bytes": b"hunter2",
        },
    )
    assert event["event"] == f"hello {HIDDEN}\ufffd[31m\ufffd\ufffd"
    assert len(event["long"]) < TEXT_LIMIT + 50
    assert len(event["many"]) == len(event["wide"]) == ITEMS_LIMIT
    assert (event["token"], event["git_token"], event["password"], event["tokens"]) == (HIDDEN, HIDDEN, "", 3)
    assert event["bytes"] == HIDDEN


def test_a_secret_across_the_cut_does_not_show_its_beginning(redactor):
    shown = redactor(None, "", {"x": "y" * (TEXT_LIMIT - 4) + SECRET + "y" * 1000})["x"]
    assert SECRET[:4] not in shown


@given(st.text(), st.text(min_size=4).filter(lambda secret: len(secret.strip()) >= 4))
def test_whatever_the_secret_and_the_text_it_is_gone(text, secret):
    secret = secret.strip()
    shown = Redactor([secret]).text(text + secret + text)
    assert secret not in shown.replace(HIDDEN, "\0")


@pytest.mark.parametrize(
    "hostile",
    [
        "-----BEGIN PRIVATE KEY-----" * 2000,
        "https://" * 20_000,
        "a" * 200_000,
        "authorization:" * 20_000,
        "bearer " * 20_000,
    ],
)
def test_hostile_text_comes_to_an_end(redactor, hostile):
    assert isinstance(redactor.text(hostile), str)
