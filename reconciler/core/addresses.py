"""Addresses that an operator writes: URLs of repositories, listening addresses, ranges of ports. Text only."""

from __future__ import annotations

import re

_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/@+,=\[\]-]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")
_HELPER = re.compile(r"[A-Za-z0-9+.-]*::")
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_PATH = r"(?!-)[^-:/][^:]*"
_HTTPS = re.compile(rf"{_HOST}(?::[0-9]{{1,5}})?/{_PATH}")
_SSH = re.compile(rf"(?:{_USER}@)?{_HOST}(?::[0-9]{{1,5}})?/{_PATH}")
_SCP = re.compile(rf"(?:{_USER}@)?{_HOST}:/?{_PATH}")
_FILE = re.compile(rf"/{_PATH}")
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[?::1\]?")


def url_problem(url: str, *, allow_file: bool) -> str:
    """What is wrong with the URL of a repository, and what to write; empty when nothing is.

    The URL is never repeated in the message: credentials may stand in it. Git runs programs for some URLs (`ext::`)
    and reads a leading `-` as an option (CVE-2022-24439, CVE-2017-1000117), and GitPython expands variables in it
    (GHSA-rwj8-pgh3-r573), so only the forms below pass.
    """
    if url.startswith("-") or _HELPER.match(url):
        return "this is not an address but a command to Git; write https://host/path or ssh://user@host/path"
    if not _CHARACTERS.fullmatch(url):
        return "the URL has a character other than letters, digits and ._~:/@+,=[]-; $ and % are not expanded"
    found = _SCHEME.fullmatch(url)
    if found is None:
        if url.startswith("/"):
            return "for a repository on this machine write file:// in front, and allowFile: true"
        return "" if _SCP.fullmatch(url) else "write https://host/path, ssh://user@host/path or user@host:path"
    return _scheme_problem(found[1], found[2], allow_file=allow_file)


def _scheme_problem(scheme: str, rest: str, *, allow_file: bool) -> str:
    authority = rest.partition("/")[0]
    user = authority.rpartition("@")[0]
    if (scheme == "https" and user) or ":" in user:
        return "credentials stand in the URL; remove them, and use username and tokenFile, or sshKey"
    if scheme == "file" and not allow_file:
        return "file:// is not allowed; set allowFile: true if the repository on this machine is meant"
    forms = {"https": _HTTPS, "ssh": _SSH, "file": _FILE}
    if scheme not in forms:
        return f"{scheme}:// is not allowed; write https:// or ssh://"
    return "" if forms[scheme].fullmatch(rest) else f"write {scheme}://, a host where one is needed, and a path"


def is_ssh(url: str) -> bool:
    """Whether an acceptable URL goes over ssh."""
    return not url.startswith(("https://", "file://"))


def listen(text: str) -> tuple[str, int]:
    """Host, without brackets, and port out of `host:port`, which matched the schema's pattern."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine only."""
    return _LOOPBACK.fullmatch(host) is not None


def port_range(text: str) -> tuple[int, int]:
    """Lowest and highest port out of `8080` or `8000-8100`, which matched the schema's pattern."""
    low, _, high = text.partition("-")
    return int(low), int(high or low)
