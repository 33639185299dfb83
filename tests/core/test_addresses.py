"""Addresses as operators write them, right and wrong."""

from __future__ import annotations

import pytest

from reconciler.core import names
from reconciler.core.addresses import is_loopback, is_ssh, listen, port_range, url_problem
from reconciler.core.errors import Reason, Retryable


@pytest.mark.parametrize(
    "url",
    ["https://git.test/fleet.git", "ssh://git@git.test:22/fleet.git", "git@git.test:fleet.git", "https://[::1]:1/x"],
)
def test_good_addresses(url: str) -> None:
    assert url_problem(url, allow_file=False) == ""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ext::sh -c true", "command to Git"),
        ("--upload-pack=x", "command to Git"),
        ("https://git.test/$HOME", "are not expanded"),
        ("/srv/fleet.git", "write file:// in front"),
        ("fleet", "user@host:path"),
        ("https://ann@git.test/fleet", "credentials"),
        ("ssh://ann:secret@git.test/fleet", "credentials"),
        ("file:///srv/fleet.git", "allowFile"),
        ("ftp://git.test/fleet", "ftp:// is not allowed"),
        ("https://git.test", "and a path"),
    ],
)
def test_bad_addresses_are_explained(url: str, said: str) -> None:
    assert said in url_problem(url, allow_file=False)


def test_a_file_is_an_address_where_it_is_allowed() -> None:
    assert url_problem("file:///srv/fleet.git", allow_file=True) == ""
    assert [is_ssh(url) for url in ("file:///x", "https://x/y", "git@x:y")] == [False, False, True]


def test_listening_addresses_and_ports() -> None:
    assert listen("[::1]:8080") == ("::1", 8080)
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "10.0.0.1")] == [True, True, True, False]
    assert (port_range("8080"), port_range("8000-8100")) == ((8080, 8080), (8000, 8100))


def test_names_and_errors_are_for_people_too() -> None:
    assert names.network("prod") == "rec.prod"
    assert str(Retryable(Reason.NAME_TAKEN, "taken", where="web", remedy="Rename it")) == "web: taken. Rename it"
