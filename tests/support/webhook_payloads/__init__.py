"""What each forge sends for a push, as small as it can be, and how it signs. GitHub's real payloads come from npm."""

import base64
import hashlib
import hmac
import json
from pathlib import Path

SECRET = b"It's a Secret to Everybody"
ZEROS = "0" * 40
SHA = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
GITHUB = Path(__file__).parents[2] / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"


def github_examples():
    """(event, payload) of every example that GitHub publishes."""
    groups = json.loads(GITHUB.read_text(encoding="utf-8"))
    return [(group["name"], payload) for group in groups for payload in group["examples"]]


def body_of(payload) -> bytes:
    return payload if isinstance(payload, bytes) else json.dumps(payload).encode()


def sha256(body: bytes, secret: bytes = SECRET) -> str:
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def headers_for(forge: str, body: bytes, *, event: str = "", delivery: str = "", secret: bytes = SECRET):
    """The headers of an authentic delivery, in the forge's own spelling."""
    basic = base64.b64encode(b"hook:" + secret).decode()
    signed = sha256(body, secret)
    own = {
        "github": {
            "X-GitHub-Event": event or "push",
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": f"sha256={signed}",
        },
        "gitlab": {
            "X-Gitlab-Event": event or "Push Hook",
            "X-Gitlab-Event-UUID": delivery,
            "X-Gitlab-Token": secret.decode(),
        },
        "gitea": {"X-Gitea-Event": event or "push", "X-Gitea-Delivery": delivery, "X-Gitea-Signature": signed},
        "forgejo": {"X-Forgejo-Event": event or "push", "X-Forgejo-Delivery": delivery, "X-Forgejo-Signature": signed},
        "gogs": {"X-Gogs-Event": event or "push", "X-Gogs-Delivery": delivery, "X-Gogs-Signature": signed},
        "bitbucket": {
            "X-Event-Key": event or "repo:push",
            "X-Request-UUID": delivery,
            "X-Hub-Signature": f"sha256={signed}",
        },
        "bitbucket-server": {
            "X-Event-Key": event or "repo:refs_changed",
            "X-Request-Id": delivery,
            "X-Hub-Signature": f"sha256={signed}",
        },
        "azure": {"Authorization": f"Basic {basic}"},
    }[forge]
    return {"Content-Type": "application/json"} | {name: value for name, value in own.items() if value}


def push(forge: str, *, ref: str = "refs/heads/main", deleted: bool = False, host: str = "", delivery: str = "d1"):
    """A push to `fleet` of `acme`. `host`: another host than the forge's own."""
    after = ZEROS if deleted else SHA
    kind = "tag" if ref.startswith("refs/tags/") else "branch"
    name = ref.split("/", 2)[2]
    host = host or HOSTS[forge]
    match forge:
        case "gitlab":
            project = {
                "web_url": f"https://{host}/acme/fleet",
                "git_ssh_url": f"git@{host}:acme/fleet.git",
                "git_http_url": f"https://{host}/acme/fleet.git",
            }
            return {"object_kind": "push", "event_name": "push", "ref": ref, "after": after, "project": project}
        case "bitbucket":
            side = {"type": kind, "name": name, "target": {"hash": SHA}}
            change = {"new": None if deleted else side, "old": side, "closed": deleted}
            links = {"html": {"href": f"https://{host}/acme/fleet"}, "self": {"href": f"https://api.{host}/2.0/x"}}
            return {"push": {"changes": [change]}, "repository": {"full_name": "acme/fleet", "links": links}}
        case "bitbucket-server":
            update = "DELETE" if deleted else "UPDATE"
            change = {"ref": {"id": ref, "displayId": name, "type": kind.upper()}, "toHash": after, "type": update}
            return {"changes": [change], "repository": {"slug": "fleet", "project": {"key": "ACME"}}}
        case "azure":
            repository = {"remoteUrl": f"https://{host}/acme/ops/_git/fleet", "name": "fleet"}
            update = {"name": ref, "oldObjectId": SHA, "newObjectId": after}
            return {
                "id": delivery,
                "eventType": "git.push",
                "resource": {"refUpdates": [update], "repository": repository},
            }
        case _:
            repository = {
                "html_url": f"https://{host}/acme/fleet",
                "ssh_url": f"git@{host}:acme/fleet.git",
                "clone_url": f"https://{host}/acme/fleet.git",
            }
            head = None if deleted else {"id": SHA}
            return {"ref": ref, "after": after, "deleted": deleted, "head_commit": head, "repository": repository}


HOSTS = {
    "github": "github.com",
    "gitlab": "gitlab.com",
    "gitea": "gitea.test:3000",
    "forgejo": "forgejo.test",
    "gogs": "gogs.test",
    "bitbucket": "bitbucket.org",
    "bitbucket-server": "bitbucket.test:7990",
    "azure": "dev.azure.com",
}
CONFIGURED = {
    "github": "git@github.com:acme/fleet.git",
    "gitlab": "ssh://git@gitlab.com/acme/fleet.git",
    "gitea": "https://gitea.test:3000/acme/fleet",
    "forgejo": "https://forgejo.test/acme/fleet.git",
    "gogs": "https://gogs.test/acme/fleet.git",
    "bitbucket": "git@bitbucket.org:acme/fleet.git",
    "bitbucket-server": "ssh://git@bitbucket.test:7999/acme/fleet.git",
    "azure": "git@ssh.dev.azure.com:v3/acme/ops/fleet",
}
