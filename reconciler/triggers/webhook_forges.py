"""What the forges send: how a delivery proves itself, and which repository and branch it speaks of. Pure functions.

Nothing of a payload is used but the names of repository and branches, and those only to choose environments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DEEPEST = 64
REFS_KEPT = 1000
URLS_KEPT = 50
_DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418, "git+ssh": 22}
_SAME_HOST = {
    "ssh.github.com": "github.com",
    "altssh.gitlab.com": "gitlab.com",
    "altssh.bitbucket.org": "bitbucket.org",
    "ssh.dev.azure.com": "dev.azure.com",
    "vs-ssh.visualstudio.com": "dev.azure.com",
}
_SCP = re.compile(r"(?:[^@/\s]{1,100}@)?(\[[0-9a-fA-F:.]+\]|[^:/\s\[\]]{2,255}):(?!//)(.{1,2000})")
# A text in JSON, also one that never ends: possessive, so that it takes one pass whatever is in it.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_URL_KEYS = frozenset(
    [
        "clone_url",
        "ssh_url",
        "git_url",
        "html_url",
        "svn_url",
        "url",
        "web_url",
        "git_http_url",
        "git_ssh_url",
        "http_url",
        "homepage",
        "href",
        "remoteUrl",
        "sshUrl",
        "webUrl",
    ]
)
Headers = Mapping[str, str]


class MalformedError(Exception):
    """The delivery is authentic but cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One ref that moved: its full name (`refs/heads/main`); `deleted` when it is gone."""

    ref: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a delivery says. `ignored`: why it is none of our business (then the rest is empty)."""

    changes: tuple[Change, ...] = ()
    urls: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    ignored: str = ""


@dataclass(frozen=True, slots=True)
class Forge:
    """`proves(headers, body, secret)`: the delivery comes from who knows the secret. Header names are lower case."""

    event_header: str
    delivery_headers: tuple[str, ...]
    proves: Callable[[Headers, bytes, bytes], bool]
    read: Callable[[str, Mapping[str, Any]], Delivery]


def _hmac_sha256(header: str, prefix: str = "") -> Callable[[Headers, bytes, bytes], bool]:
    def proves(headers: Headers, body: bytes, secret: bytes) -> bool:
        wanted = prefix + hmac.new(secret, body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(_bytes(headers.get(header, "")), wanted.encode())

    return proves


def _plain_token(headers: Headers, _body: bytes, secret: bytes) -> bool:
    return hmac.compare_digest(_bytes(headers.get("x-gitlab-token", "")), secret)


def _basic(headers: Headers, _body: bytes, secret: bytes) -> bool:
    """The secret is `user:password`, or the password alone when any user will do."""
    kind, _, coded = headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(_bytes(coded.strip()), validate=True)
    except ValueError:
        given = b""
    whole = hmac.compare_digest(given, secret)
    password = hmac.compare_digest(given.partition(b":")[2], secret)
    return kind.lower() == "basic" and bool(given) and (whole or password)


def _bytes(text: str) -> bytes:
    # Servers decode header bytes as Latin-1 (ASGI): this is the way back to what was sent.
    return text.encode("latin-1", "replace")


def parse(body: bytes, content_type: str) -> Mapping[str, Any]:
    """The JSON object in `body` (or in the `payload` field of a form, as GitHub and Gitea can send it).

    Raises MalformedError. The depth is checked before the parser sees the text.
    """
    if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        try:
            fields = parse_qs(body.decode("ascii"), max_num_fields=10)
        except ValueError as error:
            raise MalformedError("the form is not readable") from error
        body = fields.get("payload", [""])[0].encode()
    depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", _STRING.sub(b"", body)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > DEEPEST:
            raise MalformedError(f"the JSON is nested deeper than {DEEPEST}")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the body is not JSON") from error
    if not isinstance(found, dict):
        raise MalformedError("the body is not a JSON object")
    return found


def normalise(url: str) -> str:
    """A URL of a repository as `host[:port]/path`: without scheme, user, default port, `.git` and case.

    All ways to clone and to browse one repository shall come out the same; two that differ only in what was taken away
    cost one needless look. Empty when nothing can be made of it.
    """
    url = url.strip()[:2048]
    scp = _SCP.fullmatch(url) if "://" not in url else None
    try:
        if scp:
            scheme, host, port, path = "ssh", scp[1].strip("[]"), None, scp[2]
        else:
            parts = urlsplit(url)
            scheme, host, port, path = parts.scheme.lower(), parts.hostname or "", parts.port, parts.path
    except ValueError:
        return ""
    if scheme != "file" and not host:
        return ""
    host = host.lower().rstrip(".")
    pieces = [piece for piece in unquote(path).split("/") if piece not in ("", ".", "_git")]
    at = _SAME_HOST.get(host, host)
    if at != host:
        port = None
    if at.endswith(".visualstudio.com"):
        pieces = [at.removesuffix(".visualstudio.com"), *(p for p in pieces if p.lower() != "defaultcollection")]
        at = "dev.azure.com"
    if at == "dev.azure.com" and pieces[:1] == ["v3"]:
        pieces = pieces[1:]
    pieces = _without_forge_words(pieces)
    place = at if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{at}:{port}"
    return f"{place}/{'/'.join(pieces)}".removesuffix(".git").casefold()


def _without_forge_words(pieces: list[str]) -> list[str]:
    """Bitbucket Server: `scm/P/r` is cloned, `projects/P/repos/r/browse` is browsed, `P/r` is the name."""
    if len(pieces) >= 4 and pieces[-1] == "browse":
        pieces = pieces[:-1]
    if len(pieces) >= 4 and pieces[-4] == "projects" and pieces[-2] == "repos":
        return [*pieces[:-4], pieces[-3], pieces[-1]]
    return [*pieces[:-3], *pieces[-2:]] if len(pieces) >= 3 and pieces[-3] == "scm" else pieces


def _urls(value: object, depth: int = 0) -> Iterator[str]:
    """Every string below `value` that could name the repository."""
    if depth > 4:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, str) and key in _URL_KEYS:
                yield item
            elif key in ("links", "clone", "self", "html", "http", "ssh", "https"):
                yield from _urls(item, depth + 1)
    elif isinstance(value, list):
        for item in value[:URLS_KEPT]:
            yield from _urls(item, depth + 1)


def _repository_urls(*places: object) -> tuple[str, ...]:
    found = dict.fromkeys(url for place in places for url in _urls(place))
    return tuple(found)[:URLS_KEPT]


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MalformedError(f"{what} is missing or not an object")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedError(f"{what} is missing or not a list")
    return value[:REFS_KEPT]


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise MalformedError(f"{what} is missing or not a text")
    return value[:1024].encode("utf-8", "replace").decode()


def _zero(value: object) -> bool:
    """Forges write a ref that is gone as 40 (SHA-1) or 64 (SHA-256) zeros, or as null."""
    return value is None or (isinstance(value, str) and set(value) == {"0"})


def _github(event: str, payload: Mapping[str, Any]) -> Delivery:
    """GitHub, Gitea, Forgejo and Gogs: `push` with `ref`, `after` and `repository`."""
    if event != "push":
        return Delivery(ignored=f"event {event} is not a push")
    change = Change(_text(payload.get("ref"), "ref"), deleted=_zero(payload.get("after", "")))
    return Delivery((change,), _repository_urls(_object(payload.get("repository"), "repository")))


def _gitlab(_event: str, payload: Mapping[str, Any]) -> Delivery:
    """Project, group and system hooks; system hooks also send `repository_update` with a list of changes."""
    kind = payload.get("event_name") or payload.get("object_kind")
    places = payload.get("project"), payload.get("repository")
    if kind in ("push", "tag_push"):
        change = Change(_text(payload.get("ref"), "ref"), deleted=_zero(payload.get("after", "")))
        changes: tuple[Change, ...] = (change,)
    elif kind == "repository_update":
        listed = [_object(item, "changes[]") for item in _list(payload.get("changes"), "changes")]
        changes = tuple(Change(_text(c.get("ref"), "changes[].ref"), deleted=_zero(c.get("after", ""))) for c in listed)
    else:
        return Delivery(ignored=f"event {str(kind)[:64]} is not a push")
    if not any(isinstance(place, Mapping) for place in places):
        raise MalformedError("project is missing or not an object")
    return Delivery(changes, _repository_urls(*places))


def _bitbucket(event: str, payload: Mapping[str, Any]) -> Delivery:
    """Bitbucket Cloud: `push.changes[]` with `new` and `old`; a deleted ref has `new: null`."""
    if event != "repo:push":
        return Delivery(ignored=f"event {event} is not a push")
    changes = []
    for item in _list(_object(payload.get("push"), "push").get("changes"), "push.changes"):
        change = _object(item, "push.changes[]")
        side = _object(change.get("new") or change.get("old"), "push.changes[].new and old")
        space = "refs/tags/" if side.get("type") in ("tag", "annotated_tag") else "refs/heads/"
        name = _text(side.get("name"), "push.changes[].new.name")
        changes.append(Change(space + name, deleted=change.get("new") is None))
    return Delivery(tuple(changes), _repository_urls(_object(payload.get("repository"), "repository")))


def _bitbucket_server(event: str, payload: Mapping[str, Any]) -> Delivery:
    """Bitbucket Server and Data Center: `changes[]`; older ones send no links, then project key and slug must do."""
    if event not in ("repo:refs_changed", "mirror:repo_synchronized"):
        return Delivery(ignored=f"event {event} is not a push")
    changes = []
    for item in _list(payload.get("changes"), "changes"):
        change = _object(item, "changes[]")
        name = _text(_object(change.get("ref"), "changes[].ref").get("id"), "changes[].ref.id")
        changes.append(Change(name, deleted=change.get("type") == "DELETE" or _zero(change.get("toHash", ""))))
    repository = _object(payload.get("repository"), "repository")
    project = repository.get("project")
    key = project.get("key") if isinstance(project, Mapping) else None
    slug = repository.get("slug")
    paths = (f"{key}/{slug}".casefold(),) if isinstance(key, str) and isinstance(slug, str) else ()
    return Delivery(tuple(changes), _repository_urls(repository), paths)


def _azure(_event: str, payload: Mapping[str, Any]) -> Delivery:
    """Azure DevOps service hooks: `git.push` with `resource.refUpdates[]`."""
    kind = payload.get("eventType")
    if kind != "git.push":
        return Delivery(ignored=f"event {str(kind)[:64]} is not a push")
    resource = _object(payload.get("resource"), "resource")
    changes = []
    for item in _list(resource.get("refUpdates"), "resource.refUpdates"):
        update = _object(item, "resource.refUpdates[]")
        name = _text(update.get("name"), "resource.refUpdates[].name")
        changes.append(Change(name, deleted=_zero(update.get("newObjectId", ""))))
    return Delivery(tuple(changes), _repository_urls(_object(resource.get("repository"), "resource.repository")))


def _gitea_like(name: str) -> Forge:
    prefix = f"x-{name}-"
    return Forge(f"{prefix}event", (f"{prefix}delivery",), _hmac_sha256(f"{prefix}signature"), _github)


FORGES: Mapping[str, Forge] = {
    "github": Forge("x-github-event", ("x-github-delivery",), _hmac_sha256("x-hub-signature-256", "sha256="), _github),
    "gitlab": Forge("x-gitlab-event", ("idempotency-key", "x-gitlab-event-uuid"), _plain_token, _gitlab),
    "gitea": _gitea_like("gitea"),
    "forgejo": _gitea_like("forgejo"),
    "gogs": _gitea_like("gogs"),
    "bitbucket": Forge("x-event-key", ("x-request-uuid",), _hmac_sha256("x-hub-signature", "sha256="), _bitbucket),
    "bitbucket-server": Forge(
        "x-event-key", ("x-request-id",), _hmac_sha256("x-hub-signature", "sha256="), _bitbucket_server
    ),
    "azure": Forge("", (), _basic, _azure),
}
