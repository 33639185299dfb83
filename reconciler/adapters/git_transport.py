"""How a repository is reached: credentials, ssh options, and what git's complaints mean. It keeps no state.

Credentials never stand in a URL, an argument, the configuration or the memory of this program: git asks a credential
helper for them, that git itself calls for the configured site only, and the helper reads the token file.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from urllib.parse import quote

from reconciler.adapters.git_address import Address
from reconciler.adapters.git_run import environment
from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable
from reconciler.settings import RepositorySettings

TOKEN_LIMIT = 16 * 1024
TOO_LARGE = "file too large"

_HELPER = (
    '!f() { test "$1" = get || exit 0; IFS= read -r token < "$RECONCILER_GIT_TOKEN_FILE"; test -n "$token" || exit 1; '
    'printf "username=%s\\npassword=%s\\n" "$RECONCILER_GIT_USERNAME" "$token"; }; f'
)

_SSH = {
    "BatchMode": "yes",
    "CheckHostIP": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "KbdInteractiveAuthentication": "no",
    "PasswordAuthentication": "no",
    "PermitLocalCommand": "no",
    "PreferredAuthentications": "publickey",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "5",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
}


def transport_environment(settings: RepositorySettings, address: Address) -> Mapping[str, str]:
    """The environment of commands that reach out: one protocol allowed, credentials for one site.

    Raises Retryable(REPOSITORY_UNAUTHORIZED) when a file that it needs cannot be read.
    """
    where = f"repository {settings.name}"
    config: dict[str, str] = {}
    extra = {"GIT_ALLOW_PROTOCOL": address.scheme}
    if address.scheme == "ssh":
        extra["GIT_SSH_COMMAND"] = _ssh_command(settings, where)
        extra["GIT_SSH_VARIANT"] = "ssh"
    elif address.site and settings.token_file is not None:
        _check_readable(settings.token_file, "the token file", where)
        config[f"credential.{address.site}.helper"] = _HELPER
        extra["RECONCILER_GIT_TOKEN_FILE"] = str(settings.token_file.absolute())
        extra["RECONCILER_GIT_USERNAME"] = settings.username
    return environment(config, **extra)


def _ssh_command(settings: RepositorySettings, where: str) -> str:
    if settings.ssh_key is None:
        what = "there is no ssh key for it"
        raise Retryable(Reason.REPOSITORY_UNAUTHORIZED, what, where=where, remedy="set sshKey to a private key file")
    options = dict(_SSH)
    options["ConnectTimeout"] = str(max(1, min(15, int(settings.timeout.total_seconds()))))
    _check_readable(settings.ssh_key, "the ssh key", where)
    if settings.known_hosts is None:
        options["UserKnownHostsFile"] = "/dev/null"
    else:
        _check_readable(settings.known_hosts, "the file of known hosts", where)
        options["UserKnownHostsFile"] = _ssh_path(settings.known_hosts)
        options["GlobalKnownHostsFile"] = "/dev/null"
    words = ["ssh", "-F", "/dev/null", "-i", str(settings.ssh_key.absolute())]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return shlex.join(words)


def _ssh_path(path: Path) -> str:
    """A path as ssh_config(5) takes it: quoted for blanks, `%` doubled because it starts a token there."""
    return '"' + str(path.absolute()).replace("%", "%%") + '"'


def _check_readable(path: Path, what: str, where: str) -> None:
    if not os.access(path, os.R_OK):
        raise Retryable(
            Reason.REPOSITORY_UNAUTHORIZED,
            f"{what} {path} cannot be read",
            where=where,
            remedy="create it, or let the user that Reconciler runs as read it",
        )


class Trouble(Enum):
    """What a failed command says. `DOUBTFUL`: it may be the mirror that is damaged."""

    MISSING = auto()
    DOUBTFUL = auto()
    UNAUTHORIZED = auto()
    UNREACHABLE = auto()
    OUT_OF_DISK = auto()
    TOO_LARGE = auto()


_PATTERNS: tuple[tuple[Trouble, re.Pattern[str]], ...] = tuple(
    (trouble, re.compile(pattern, re.IGNORECASE))
    for trouble, pattern in (
        (Trouble.MISSING, r"couldn't find remote ref"),
        (Trouble.OUT_OF_DISK, r"no space left on device|disk quota exceeded"),
        (Trouble.TOO_LARGE, TOO_LARGE),
        (
            Trouble.DOUBTFUL,
            r"is corrupt|bad object|necessary objects|unable to read|cannot lock ref|unable to resolve reference|"
            r"fatal: not a git repository|packfile|unresolved deltas|object file .* is empty|bad config",
        ),
        (
            Trouble.UNAUTHORIZED,
            r"authentication failed|could not read (?:username|password)|returned error: 40[13]|permission denied \(|"
            r"host key verification failed|no .{0,40}host key is known|dubious ownership|load key|"
            r"terminal prompts disabled|too many authentication failures",
        ),
        (
            Trouble.UNREACHABLE,
            r"could not resolve host|unable to access|failed to connect|couldn't connect|connection (?:refused|reset|"
            r"closed|timed out)|timed out|too slow|early eof|hung up|returned error|could not read from remote|"
            r"not found|does not appear to be|certificate|gnutls|openssl|redirect|rpc failed|no route to host|"
            r"network is unreachable|remote error|invalid server response|protocol error|bad line length|"
            r"disconnect|kex_exchange|broken pipe|not allowed",
        ),
    )
)


def diagnose(err: str) -> Trouble:
    """What git's error output is about (git 2.39, LC_ALL=C). What is not recognised is DOUBTFUL."""
    return next((trouble for trouble, pattern in _PATTERNS if pattern.search(err)), Trouble.DOUBTFUL)


def failure(trouble: Trouble, err: str, settings: RepositorySettings) -> ReconcilerError:
    """The error to raise for a command that failed; it quotes one line of git, cut and free of secrets."""
    where = f"repository {settings.name}"
    said = _quotable(err, trouble, settings)
    if trouble is Trouble.UNAUTHORIZED:
        remedy = "check the token file, or the ssh key and known hosts, and what they may read"
        return Retryable(Reason.REPOSITORY_UNAUTHORIZED, f"access was refused ({said})", where=where, remedy=remedy)
    if trouble is Trouble.OUT_OF_DISK:
        remedy = "free some space where the data directory is"
        return Retryable(Reason.OUT_OF_DISK, f"there is no room for the mirror ({said})", where=where, remedy=remedy)
    if trouble is Trouble.TOO_LARGE:
        remedy = "remove large files from its history"
        what = "the repository is larger than a mirror may be"
        return Rejected(Reason.REPOSITORY_HOSTILE, what, where=where, remedy=remedy)
    remedy = (
        "redirects are not followed: set the address it redirects to"
        if re.search(r"redirect|returned error: 30[12378]", err, re.IGNORECASE)
        else "check the address and the network; some servers answer like this when access is not allowed"
    )
    return Retryable(Reason.REPOSITORY_UNREACHABLE, f"it could not be fetched ({said})", where=where, remedy=remedy)


def too_slow(settings: RepositorySettings) -> Retryable:
    """The deadline has passed."""
    seconds = settings.timeout.total_seconds()
    return Retryable(
        Reason.REPOSITORY_UNREACHABLE,
        f"it did not answer completely within {seconds:g} s",
        where=f"repository {settings.name}",
        remedy="check the server and the network, or raise the timeout for a large repository",
    )


def _quotable(err: str, trouble: Trouble, settings: RepositorySettings) -> str:
    """The line that says most: printable characters only, at most 200 of them, no form of the token in it."""
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    patterns = [pattern for found, pattern in _PATTERNS if found is trouble]
    telling = [line for line in lines if any(pattern.search(line) for pattern in patterns)] or lines or ["no message"]
    line = telling[0]
    for secret in _forms_of_token(settings):
        line = line.replace(secret, "[redacted]")
    return "".join(char if char.isprintable() else " " for char in line)[:200]


def _forms_of_token(settings: RepositorySettings) -> list[str]:
    """The token as a server might send it back: as it is, quoted for a URL, and as basic authentication."""
    if settings.token_file is None:
        return []
    try:
        with settings.token_file.open("rb") as file:
            token = file.read(TOKEN_LIMIT).split(b"\n")[0].decode("utf-8", "replace").strip()
    except OSError:
        return []
    if not token:
        return []
    basic = base64.b64encode(f"{settings.username}:{token}".encode()).decode()
    return [token, quote(token, safe=""), basic, basic.rstrip("=")]
