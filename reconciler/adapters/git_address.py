"""What Git is allowed to be asked for: addresses, refs and revision names, by strict patterns. No I/O.

Nothing reaches a git command line that did not pass here. Patterns list what is allowed, never what is not, so
remote helpers (`ext::`), options (`-u…`) and shell or environment syntax (`$NAME`) have no way in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote

from reconciler.core.errors import Reason, Rejected, Stalled

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
_PATH = r"[A-Za-z0-9._~+@%,=/-]{1,1000}"
_URL = re.compile(
    rf"(?P<scheme>https?|ssh)://(?:(?P<user>{_USER})@)?(?P<host>{_HOST})(?P<port>:[0-9]{{1,5}})?/(?P<path>{_PATH})"
)
_SCP = re.compile(rf"(?:(?P<user>{_USER})@)?(?P<host>{_HOST}):(?P<path>(?!//)[A-Za-z0-9._~/]{_PATH})")
_FILE = re.compile(r"(?:file://)?(?P<path>/[^\x00-\x1f\x7f]{1,4000})")
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")

_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@#=,/-]{0,199}")
_REF_TROUBLE = re.compile(r"\.\.|//|/\.|@\{|\.lock(?:/|$)|[/.]$|\./")
_REVISION = re.compile(r"(?P<base>[A-Za-z0-9_][A-Za-z0-9._+@#=,/-]{0,199}?)(?P<steps>(?:~[0-9]{0,5}|\^[0-9]?){0,8})")
_SHA = re.compile(r"[0-9a-f]{40}")
_SHORT_SHA = re.compile(r"[0-9a-f]{4,40}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a repository is: `url` as git is given it, and `site` (scheme://host[:port]) its credentials belong to."""

    url: str
    scheme: str
    site: str


def parse_address(name: str, url: str, *, allow_file: bool, username: str) -> Address:
    """The address of the repository `name`. An ssh address without a user gets `username`.

    Plain http is accepted on loopback only. Raises Stalled(SETTINGS_INVALID) for anything else than https, ssh and,
    with `allow_file`, an absolute path; the address is not repeated in the error because it may hold a password.
    """
    where = f"repository {name}"
    if not _NAME.fullmatch(name):
        raise Stalled(Reason.SETTINGS_INVALID, "the name of a repository must be letters, digits, '.', '_' or '-'")
    if found := _FILE.fullmatch(url):
        if not allow_file:
            what = "a repository on this machine is not allowed"
            raise Stalled(Reason.SETTINGS_INVALID, what, where=where, remedy="set allowFile if that is meant")
        return Address("file://" + quote(found["path"]), "file", "")
    if found := _SCP.fullmatch(url):
        return Address(f"{_user(found['user'] or username, where)}@{found['host']}:{found['path']}", "ssh", "")
    found = _URL.fullmatch(url)
    if found is None or (found["scheme"] != "ssh" and found["user"]):
        raise Stalled(
            Reason.SETTINGS_INVALID,
            "the URL is not one that is allowed",
            where=where,
            remedy="write https://host/path, ssh://user@host/path or user@host:path, without a password or token in "
            "it; tokens belong in tokenFile",
        )
    scheme, host, port = found["scheme"], found["host"], found["port"] or ""
    if scheme == "http" and not _LOOPBACK.fullmatch(host):
        what = "plain http would send credentials and revisions unprotected"
        raise Stalled(Reason.SETTINGS_INVALID, what, where=where, remedy="use https or ssh")
    if scheme == "ssh":
        user = _user(found["user"] or username, where)
        return Address(f"ssh://{user}@{host}{port}/{found['path']}", "ssh", "")
    return Address(url, scheme, f"{scheme}://{host}{port}")


def _user(name: str, where: str) -> str:
    if not re.fullmatch(_USER, name):
        what = "the user name is not one that is allowed"
        raise Stalled(Reason.SETTINGS_INVALID, what, where=where, remedy="use letters, digits, '.', '_' and '-'")
    return name


def ref_problem(ref: str) -> str:
    """What is wrong with a branch name, `refs/…` name or `HEAD`; empty when it may be used."""
    if _REF.fullmatch(ref) and not _REF_TROUBLE.search(ref) and len(_quoted(ref)) <= 220:
        return ""
    return (
        "a ref is a branch or refs/… name of at most 200 letters, digits and . _ + @ # = , / -, not starting with '-'"
    )


def full_ref(ref: str, *, where: str) -> str:
    """The full name of `ref`: a plain name is a branch. Raises Stalled(SETTINGS_INVALID)."""
    problem = ref_problem(ref)
    if problem:
        raise Stalled(Reason.SETTINGS_INVALID, problem, where=where, remedy="correct the ref in the settings")
    return ref if ref == "HEAD" or ref.startswith("refs/") else f"refs/heads/{ref}"


def mirror_ref(address: Address, ref: str) -> str:
    """Where the mirror keeps the full name `ref`: one flat name, so that `a` and `a/b` never collide.

    The digest of the address is part of it: after a change of the URL nothing of the old place passes for the new one.
    """
    place = hashlib.sha256(address.url.encode()).hexdigest()[:12]
    return f"refs/reconciler/{place}/{_quoted(ref)}"


def _quoted(ref: str) -> str:
    return ref.removeprefix("refs/").replace("/", "%2F")


@dataclass(frozen=True, slots=True)
class RevisionName:
    """A revision name a person typed: `base` is a SHA, a name or HEAD; `steps` go back from it, as in `~2` or `^`."""

    base: str
    steps: str

    @property
    def is_sha(self) -> bool:
        """A full SHA and nothing else."""
        return not self.steps and bool(_SHA.fullmatch(self.base))

    @property
    def may_be_sha(self) -> bool:
        """The base may be a full or shortened SHA (or a branch that is called like one)."""
        return bool(_SHORT_SHA.fullmatch(self.base))


def parse_revision(text: str, *, where: str) -> RevisionName:
    """Raises Rejected(REVISION_MISSING) when `text` is no revision name that is understood."""
    found = _REVISION.fullmatch(text)
    if found is None or ref_problem(found["base"]):
        raise Rejected(
            Reason.REVISION_MISSING,
            "this is not a revision name",
            where=where,
            remedy="name a SHA, a branch, a tag or HEAD, with ~N or ^ behind it to go back",
        )
    return RevisionName(found["base"], found["steps"])
