"""What the Kubernetes API refuses, and what keeps it from answering, in our words. No calls are made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable, Stalled

HEAD, TAIL = 300, 190
"""What is kept of a long message: between what is wrong and why it may show a whole object."""
UNANSWERED = 0
"""The status of a call that got no answer."""
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Target:
    """What a call is about: the verb and the resource as a Role names them (`deployments.apps`)."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        named = f" {self.name}" if self.name else ""
        return f"{self.verb} {self.resource}{named}" + (f" in namespace {self.namespace}" if self.namespace else "")


def target(method: str, path: str, query: Mapping[str, str] | None = None) -> Target:
    """What a call to `path` of the API is about."""
    parts = [part for part in path.split("?", 1)[0].split("/") if part]
    group = ""
    if parts[:1] == ["api"]:
        rest = parts[2:]
    elif parts[:1] == ["apis"]:
        group, rest = (parts[1] if len(parts) > 1 else ""), parts[3:]
    else:
        return Target(_VERBS.get(method, method.lower()), path)
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource = (rest or [path])[0]
    name = rest[1] if len(rest) > 1 else ""
    if len(rest) > 2:
        resource = f"{resource}/{rest[2]}"
    verb = _VERBS.get(method, method.lower())
    if verb == "get" and not name:
        verb = "watch" if (query or {}).get("watch") else "list"
    return Target(verb, f"{resource}.{group}" if group else resource, namespace, name)


class ApiError(Exception):
    """The API refused a call, or (`status` 0) did not answer it.

    `reason` and `message` are the API's; `retry_after` in seconds if it named one; `details` of its Status object.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
        asked: Target | None = None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = _shortened(" ".join(message.split()))
        self.retry_after = retry_after
        self.details: Mapping[str, Any] = details or {}
        self.asked = asked or Target("call", "the API")
        super().__init__(f"{self.asked}: {self.status} {self.reason}: {self.message}")

    def causes(self) -> list[Mapping[str, Any]]:
        """The causes that the Status names."""
        found = self.details.get("causes")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def caused_by(self, reason: str) -> bool:
        """Whether the Status names this cause."""
        return any(one.get("reason") == reason for one in self.causes())

    def is_another(self) -> bool:
        """Whether the object is not there any more as it was looked at, or one is where there was none.

        The uid as a precondition is answered as a change of it, by 422; where nothing is there any more by 409 or 404.
        """
        if self.status == 409:
            return not self.caused_by("NamespaceTerminating")
        other = self.status == 422 and any(one.get("field") == "metadata.uid" for one in self.causes())
        return other or self.reason == "NotFound"


def _shortened(message: str) -> str:
    return message if len(message) <= HEAD + TAIL else f"{message[:HEAD]} … {message[-TAIL:]}"


def translated(error: Exception, where: str) -> ReconcilerError:
    """The error of ours for whatever a call raised. `where` names the cluster."""
    if isinstance(error, ReconcilerError):
        return error
    if not isinstance(error, ApiError):
        return _unanswered(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", where)
    if error.status == UNANSWERED:
        return _unanswered(error.message, where)
    place = f"{where}, {error.asked}"
    after = timedelta(seconds=error.retry_after) if error.retry_after is not None else None
    namespace = _namespace_missing(error, place)
    if namespace is not None:
        return namespace
    match error.status:
        case 401:
            return Retryable(
                Reason.FORBIDDEN,
                f"the credentials are not accepted: {error.message}",
                where=place,
                remedy="Renew the token or the certificate of the kubeconfig",
            )
        case 403:
            return _forbidden(error, place)
        case 404:
            return Retryable(Reason.ENGINE_REFUSED, f"is not there: {error.message}", where=place, after=after)
        case _ if error.is_another():
            return Retryable(
                Reason.ENGINE_REFUSED, f"somebody else changed it at the same time: {error.message}", where=place
            )
        case _ if _is_refusal(error):
            return Rejected(
                Reason.ENGINE_REFUSED,
                f"the API refused it: {error.message}",
                where=place,
                remedy="Change what the service asks for, or upgrade the cluster",
            )
    return Retryable(
        Reason.ENGINE_REFUSED,
        f"the API answered {error.status} {error.reason}: {error.message}",
        where=place,
        remedy="It is tried again; see the log of the API server if this stays",
        after=after,
    )


def _is_refusal(error: ApiError) -> bool:
    """Whether the object is unacceptable. An apply with an unknown field is answered by 500."""
    unknown = error.status == 500 and "field not declared in schema" in error.message
    return unknown or error.status in (400, 405, 406, 413, 415, 422)


def _unanswered(said: str, where: str) -> ReconcilerError:
    remedy = "Check that the API server runs and can be reached from here"
    if "certificate" in said.lower():
        remedy = "Check certificate-authority in the kubeconfig"
    return Retryable(Reason.ENGINE_UNREACHABLE, f"the API server does not answer: {said}", where=where, remedy=remedy)


def _namespace_missing(error: ApiError, place: str) -> ReconcilerError | None:
    named = str(error.details.get("name") or "")
    missing = error.status == 404 and error.details.get("kind") == "namespaces" and named == error.asked.namespace
    if missing and named:
        return Stalled(
            Reason.NAMESPACE_MISSING,
            f"there is no namespace {named}",
            where=place,
            remedy=f"Create it (kubectl create namespace {named}), or name another in the environment's settings",
        )
    if error.caused_by("NamespaceTerminating"):
        return Retryable(
            Reason.NAMESPACE_MISSING,
            f"namespace {error.asked.namespace} is being deleted",
            where=place,
            remedy="Create it anew when it is gone",
        )
    return None


def _forbidden(error: ApiError, place: str) -> ReconcilerError:
    if "exceeded quota" in error.message or "failed quota" in error.message:
        return Retryable(
            Reason.QUOTA_EXCEEDED,
            f"a quota of the namespace is exhausted: {error.message}",
            where=place,
            remedy="Raise the ResourceQuota, or ask for less",
        )
    asked = error.asked
    role = f"in a Role of namespace {asked.namespace}" if asked.namespace else "in a ClusterRole"
    return Stalled(
        Reason.FORBIDDEN,
        f"not allowed to {asked}: {error.message}",
        where=place,
        remedy=f"Allow {asked.verb} on {asked.resource} {role}",
    )
