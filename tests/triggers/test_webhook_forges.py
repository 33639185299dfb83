"""What the forges send, read without a server: addresses, changes, and everything that may be wrong with a payload."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.triggers.webhook_forges import DEEPEST, FORGES, Change, MalformedError, normalise, parse
from tests.support.webhook_payloads import CONFIGURED, HOSTS, SECRET, body_of, headers_for, push, sha256


@pytest.mark.parametrize(
    ("urls", "same"),
    [
        (
            [
                "https://github.com/acme/fleet",
                "https://GitHub.com/Acme/Fleet.git",
                "https://github.com/acme/fleet.git/",
                "http://github.com:80/acme/fleet",
                "https://user:pw@github.com:443/acme//fleet",
                "git@github.com:acme/fleet.git",
                "github.com:acme/fleet",
                "ssh://git@github.com/acme/fleet.git",
                "ssh://git@github.com:22/acme/fleet.git",
                "ssh://git@ssh.github.com:443/acme/fleet.git",
                "git://github.com:9418/acme/fleet.git",
            ],
            "github.com/acme/fleet",
        ),
        (
            [
                "https://acme@dev.azure.com/acme/my%20ops/_git/fleet",
                "git@ssh.dev.azure.com:v3/acme/my%20ops/fleet",
                "https://acme.visualstudio.com/DefaultCollection/my%20ops/_git/fleet",
                "acme@vs-ssh.visualstudio.com:v3/acme/my%20ops/fleet",
            ],
            "dev.azure.com/acme/my ops/fleet",
        ),
        (
            [
                "https://bb.test/scm/acme/fleet.git",
                "https://bb.test/projects/ACME/repos/fleet/browse",
                "ssh://git@bb.test/acme/fleet.git",
            ],
            "bb.test/acme/fleet",
        ),
        (["https://gitea.test:3000/a/b", "http://gitea.test:3000/a/b.git"], "gitea.test:3000/a/b"),
        (["ssh://git@[::1]:2222/a/b"], "::1:2222/a/b"),
        (["file:///srv/git/fleet.git", "file:///srv/git/fleet"], "/srv/git/fleet"),
        (["", "fleet", "https://", "https://[::1/x", "https://host:99999/x"], ""),
    ],
)
def test_every_way_to_name_a_repository_comes_out_the_same(urls, same):
    assert {normalise(url) for url in urls} == {same}


def test_different_repositories_stay_different():
    urls = ["https://a.test/x/y", "https://a.test/x/z", "https://b.test/x/y", "https://a.test:8443/x/y", "file:///x/y"]
    assert len({normalise(url) for url in urls}) == len(urls)


@given(st.text(max_size=100))
def test_any_text_can_be_asked_for(text):
    assert isinstance(normalise(text), str)
    assert isinstance(normalise("https://" + text), str)


@pytest.mark.parametrize("forge", FORGES)
@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("ref", ["refs/heads/main", "refs/tags/v1", "refs/heads/a/b"])
def test_each_forge_says_what_moved_and_where(forge, deleted, ref):
    body = body_of(push(forge, ref=ref, deleted=deleted))
    headers = {name.lower(): value for name, value in headers_for(forge, body).items()}
    spoken = FORGES[forge].read(headers.get(FORGES[forge].event_header, ""), parse(body, "application/json"))
    assert spoken.changes == (Change(ref, deleted),)
    mine = normalise(CONFIGURED[forge])
    assert mine in {normalise(url) for url in spoken.urls} or any(mine.endswith(path) for path in spoken.paths)


@pytest.mark.parametrize("forge", FORGES)
def test_only_who_knows_the_secret_can_prove_it(forge):
    body = body_of(push(forge))
    good = {name.lower(): value for name, value in headers_for(forge, body).items()}
    proves = FORGES[forge].proves
    assert proves(good, body, SECRET)
    assert not proves(good, body, b"another")
    assert not proves({}, body, SECRET)
    for name in ("x-hub-signature-256", "x-hub-signature", "x-gitlab-token", "authorization", f"x-{forge}-signature"):
        for bad in ("", "sha256=", "\xff\xfe", good.get(name, "x")[:-1], "sha1=" + "0" * 40, "Basic !!!", "x" * 10_000):
            if name in good:
                assert not proves({**good, name: bad}, body, SECRET)


def test_signatures_cover_the_body():
    body = body_of(push("github"))
    headers = {name.lower(): value for name, value in headers_for("github", body).items()}
    assert not FORGES["github"].proves(headers, body + b" ", SECRET)


def test_githubs_published_check():
    """The secret, body and digest that GitHub's documentation gives."""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"x-hub-signature-256": signature}
    assert FORGES["github"].proves(headers, b"Hello, World!", b"It's a Secret to Everybody")
    assert signature == f"sha256={sha256(b'Hello, World!', b'''It's a Secret to Everybody''')}"


def test_a_token_beyond_ascii_is_compared_as_bytes():
    """Servers hand header bytes on as Latin-1."""
    sent = "pässwörd".encode().decode("latin-1")
    assert FORGES["gitlab"].proves({"x-gitlab-token": sent}, b"", "pässwörd".encode())


def test_azure_takes_the_user_too_when_the_secret_has_one():
    headers = {"authorization": "Basic aG9vazpzM2NyZXQ="}
    assert FORGES["azure"].proves(headers, b"", b"hook:s3cret")
    assert FORGES["azure"].proves(headers, b"", b"s3cret")
    assert not FORGES["azure"].proves(headers, b"", b"other:s3cret")
    assert not FORGES["azure"].proves({"authorization": "Bearer aG9vazpzM2NyZXQ="}, b"", b"s3cret")


def test_gitlab_system_hooks():
    project = {"git_http_url": "https://gitlab.com/acme/fleet.git"}
    changes = [{"ref": "refs/heads/main", "after": "a" * 40}, {"ref": "refs/tags/v1", "after": "0" * 40}]
    update = {"event_name": "repository_update", "project": project, "changes": changes}
    spoken = FORGES["gitlab"].read("System Hook", update)
    assert spoken.changes == (Change("refs/heads/main"), Change("refs/tags/v1", deleted=True))
    assert FORGES["gitlab"].read("System Hook", {"event_name": "user_create"}).ignored
    assert FORGES["gitlab"].read("Note Hook", {"object_kind": "note"}).ignored


def test_bitbucket_servers_links_are_used_where_they_are():
    payload = push("bitbucket-server")
    payload["repository"]["links"] = {"clone": [{"href": "https://bitbucket.test/scm/acme/fleet.git", "name": "http"}]}
    assert (
        "https://bitbucket.test/scm/acme/fleet.git"
        in FORGES["bitbucket-server"].read("repo:refs_changed", payload).urls
    )
    assert HOSTS["bitbucket-server"]


def test_a_form_is_read_like_json():
    body = b"payload=" + quote(json.dumps({"ref": "x"})).encode()
    assert parse(body, "application/x-www-form-urlencoded; charset=utf-8") == {"ref": "x"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", ""),
        (b"[]", ""),
        (b"null", ""),
        (b"1", ""),
        (b'{"a":', ""),
        (b"\xff\xfe{}", ""),
        (b'{"a": ' + b"9" * 10_000 + b"}", ""),
        (b"[" * 500_000, ""),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), ""),
        (b'{"a' + b'\\"' * 500_000, ""),
        (b"\xff", "application/x-www-form-urlencoded"),
        (b"a=1&" * 100, "application/x-www-form-urlencoded"),
        (b"other=1", "application/x-www-form-urlencoded"),
    ],
)
def test_what_cannot_be_read_is_malformed(body, kind):
    with pytest.raises(MalformedError):
        parse(body, kind)


def test_brackets_in_texts_are_not_depth():
    assert parse(json.dumps({"message": '"[{' * 1000}).encode(), "application/json")


@pytest.mark.parametrize("forge", FORGES)
@settings(max_examples=40)
@given(
    payload=st.dictionaries(
        st.sampled_from(
            [
                "ref",
                "after",
                "repository",
                "project",
                "event_name",
                "object_kind",
                "changes",
                "push",
                "resource",
                "eventType",
                "id",
                "links",
                "new",
            ]
        ),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.sampled_from(["push", "git.push", "repository_update", "refs/heads/main", ""]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "changes",
                            "ref",
                            "id",
                            "refUpdates",
                            "repository",
                            "new",
                            "old",
                            "name",
                            "links",
                            "clone",
                            "type",
                        ]
                    ),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_any_payload_is_read_or_called_malformed(forge, payload):
    event = {"bitbucket": "repo:push", "bitbucket-server": "repo:refs_changed"}.get(forge, "push")
    try:
        spoken = FORGES[forge].read(event, payload)
    except MalformedError:
        return
    assert all(isinstance(change.ref, str) for change in spoken.changes)
    assert all(isinstance(url, str) for url in spoken.urls)
