"""One service: every field into its value with its default, and every rule that refuses one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.core import image
from reconciler.core.delivery import Rollout, Strategy
from reconciler.core.errors import Reason
from reconciler.core.model import (
    Drain,
    DriftPolicy,
    ExecCheck,
    File,
    Health,
    HttpCheck,
    ImageRef,
    Port,
    Resources,
    SecretTarget,
    SecretUse,
    Security,
    ServiceSpec,
    TcpCheck,
    Tmpfs,
)
from reconciler.core.policy import Allow
from tests.support.fleet import DIGEST, DIRECTORY, Repository, problems_of, service, spec_of

ALL = """
replicas: 1
command: [/app]
args: [--port, "8080"]
env: {A: "1", B: ""}
files:
- {path: /etc/a, source: ./files/a, mode: "0440"}
- {path: /etc/b, content: "grüß"}
secrets:
- {secret: db, env: DB}
- {secret: tls, file: /run/secrets/tls}
ports:
- {name: http, container: 8080, host: 8081, address: 0.0.0.0}
- {name: dns, container: 53, protocol: udp}
resources: {memory: 128Mi, cpus: "0.5", pids: 10}
tmpfs: [{path: /tmp, size: 1Mi}]
security: {user: "1000:1000", writableRoot: true, writablePaths: [/var], capabilities: [NET_BIND_SERVICE],
  privileged: true, hostNetwork: true}
health: {http: {port: http, path: /z}, interval: 1s, timeout: 500ms, healthyAfter: 1, unhealthyAfter: 5, startup: 1m}
drain: {deadline: 1s, grace: 2s}
rollout: {strategy: rolling, surge: 0, progressDeadline: 5m}
labels: {team: blue}
drift: report
suspend: true
lifetime: 24h
"""


def test_every_field_has_its_value():
    allow = Allow(
        writable_root=True,
        privileged=True,
        host_network=True,
        capabilities=("NET_BIND_SERVICE",),
        host_ports=((8000, 8100),),
    )
    assert spec_of(ALL, allow, **{f"{DIRECTORY}/files/a": "alpha"}) == ServiceSpec(
        name="web",
        image=ImageRef("registry.test/web", DIGEST, "1"),
        command=("/app",),
        args=("--port", "8080"),
        env={"A": "1", "B": ""},
        files=(File("/etc/a", b"alpha", 0o440), File("/etc/b", "grüß".encode())),
        secrets=(SecretUse("db", SecretTarget.ENV, "DB"), SecretUse("tls", SecretTarget.FILE, "/run/secrets/tls")),
        ports=(Port("http", 8080, host=8081, address="0.0.0.0"), Port("dns", 53, "udp")),
        resources=Resources(2**27, 5 * 10**8, 10),
        tmpfs=(Tmpfs("/tmp", 2**20),),
        security=Security(
            user="1000:1000",
            writable_root=True,
            writable_paths=("/var",),
            capabilities=("NET_BIND_SERVICE",),
            privileged=True,
            host_network=True,
        ),
        health=Health(
            HttpCheck(8080, "/z"),
            interval=timedelta(seconds=1),
            timeout=timedelta(milliseconds=500),
            healthy_after=1,
            unhealthy_after=5,
            startup=timedelta(minutes=1),
        ),
        labels={"team": "blue"},
        drain=Drain(timedelta(seconds=1), timedelta(seconds=2)),
        rollout=Rollout(Strategy.ROLLING, 0, progress_deadline=timedelta(minutes=5)),
        drift=DriftPolicy.REPORT,
        suspend=True,
        lifetime=timedelta(hours=24),
    )


def test_what_is_not_written_keeps_its_default():
    assert spec_of("") == ServiceSpec("web", ImageRef("registry.test/web", DIGEST, "1"))


@pytest.mark.parametrize(
    ("health", "check"),
    [
        ("{http: {port: 80}}", HttpCheck(80, "/")),
        ("{tcp: {port: http}}", TcpCheck(8080)),
        ("{exec: {command: [/check, now]}}", ExecCheck(("/check", "now"))),
        ("{interval: 5s}", None),
    ],
)
def test_the_kinds_of_check(health, check):
    assert spec_of(f"ports: [{{name: http, container: 8080}}]\nhealth: {health}").health.check == check


PROBLEMS = [
    ("replicas: 1.0", "7:13: 1.0 cannot stand here; write a whole number"),
    ('replicas: "3"', '7:13: "3" is text here; write the number without quotes: 3'),
    ("replicas: -1", "7:13: -1 is too small; at least 0"),
    ("replicas: 1001", "7:13: 1001 is too large; at most 1000"),
    ("replicas: true", "7:13: true cannot stand here; write a whole number"),
    ("replicas:", "7:12: no value here, but a whole number is needed; write one or remove the key"),
    ("env: {A: 1.10}", '7:12: value 1.10 is a number here; quote it: "1.10"'),
    ("env: {A: true}", '7:12: value true is true or false here; quote it: "true"'),
    ("env: {A: [x]}", "7:12: a list cannot stand here; write text"),
    ("env: {A: {x: y}}", "7:12: a mapping cannot stand here; write text"),
    ("drain: {grace: 5}", "7:18: value 5 is a number here; a duration is written as 500ms, 30s, 5m, 1h30m or 720h"),
    ("drain: {grace: 25h}", '7:18: "25h" is too large; at most 24h'),
    ("lifetime: 5s", '7:13: "5s" is too small; at least 1m'),
    ("resources: {memory: 5Mi}", '7:23: "5Mi" is too small; at least 6Mi'),
    ('resources: {cpus: "0"}', '7:21: "0" is too small; at least 10m'),
    ("drift: fix", '7:10: "fix" is not allowed here; one of: correct, report'),
    ("drift: corect", '7:10: "corect" is not allowed here; did you mean "correct"?'),
    ("Replicas: 2", '7:3: unknown field "Replicas"; did you mean "replicas"?'),
    ("health: {exec: {command: []}}", "7:28: this is empty; add something or remove it"),
    ("health: {http: {}}", '7:12: missing field "port" in http; add it'),
    ("ports: [{container: 80}]", '7:11: missing field "name"; add it'),
    ("health: {tcp: {port: 80}, http: {port: 80}}", "7:11: health has http and tcp; keep one"),
    ("health: {tcp: {port: web}}", '7:24: there is no port "web" in spec.ports'),
    (
        "ports: [{name: http, container: 80}]\nhealth: {tcp: {port: htp}}",
        '8:24: there is no port "htp" in spec.ports; did you mean "http"?',
    ),
    (
        "ports: [{name: dns, container: 53, protocol: udp}]\nhealth: {tcp: {port: dns}}",
        "8:24: port dns is a udp port; check a tcp port",
    ),
    ("ports: [{name: a, container: 1}, {name: a, container: 2}]", "7:43: two ports are named a; rename one"),
    ("ports: [{name: a, container: 1}, {name: b, container: 1}]", "7:57: port 1 is here twice; remove one"),
    ("ports: [{name: a, container: 1, address: x}]", '7:44: "x" is not an IP address; write one'),
    (
        "rollout: {surge: 0}",
        "7:20: surge 0 would stop an instance before its successor is healthy; write 1 or more",
    ),
    (
        "env: {A: x}\nsecrets: [{secret: s, env: A}]",
        "8:30: variable A is set twice; remove it here or in env",
    ),
    (
        "secrets: [{secret: s, file: /a}, {secret: t, file: /b}, {secret: u, env: A}, {secret: v, env: A}]",
        "7:97: variable A is set twice; remove it here or in env",
    ),
    ("secrets: [{secret: s}]", "7:13: a secret needs exactly one of env (a variable) and file (an absolute path)"),
    (
        "files: [{path: /a, content: x}]\ntmpfs: [{path: /a, size: 1Mi}]",
        "7:18: /a is given twice; remove one",
    ),
    (
        "tmpfs: [{path: /a, size: 1Mi}]\nsecrets: [{secret: s, file: /a/b}]",
        "8:31: /a/b would be hidden by tmpfs /a; move one of them",
    ),
    ("tmpfs: [{path: /proc/x, size: 1Mi}]", "7:18: /proc/x belongs to the kernel; choose another path"),
    (
        "security: {writablePaths: [/x]}",
        "7:29: writablePaths needs writableRoot: true; without it, declare the directory in tmpfs",
    ),
    (
        "files: [{path: /a, content: x, source: y}]",
        "7:11: a file needs exactly one of source (a path in the repository) and content (text)",
    ),
    (
        "files: [{path: /a, source: /etc/passwd}]",
        '7:30: path "/etc/passwd" is absolute; begin at the repository\'s root, without the first /',
    ),
    (
        "labels: {dev.reconciler.owner: x}",
        '7:12: "dev.reconciler.owner" is not valid here: the name of a label has letters, digits and . _ / - and '
        "does not begin with dev.reconciler.",
    ),
]


@pytest.mark.parametrize(("text", "problem"), PROBLEMS)
def test_a_problem_is_named_with_its_place_and_remedy(text, problem):
    assert problems_of(text) == [problem]


def test_a_host_port_needs_a_single_instance_and_may_not_be_taken_twice():
    allow = Allow(host_ports=((80, 80),))
    port = "{name: a, container: 1, host: 80}"
    assert problems_of(f"replicas: 2\nports: [{port}]", allow) == [
        "8:41: host port 80 can be held by one instance only, but replicas is 2; remove host or set replicas to 1"
    ]
    assert problems_of(f"ports: [{port}, {{name: b, container: 2, host: 80, address: '::'}}]", allow) == [
        "7:76: host port 80 is here twice; remove one"
    ]
    other = "{name: b, container: 2, host: 80, address: 10.0.0.1}"
    assert len(spec_of(f"ports: [{port}, {other}]", allow).ports) == 2


def test_shared_memory_may_be_sized():
    assert spec_of("tmpfs: [{path: /dev/shm, size: 1Mi}]").tmpfs[0].path == "/dev/shm"


def test_files_are_capped():
    huge = {f"{DIRECTORY}/huge": "x" * (2**20 + 1), f"{DIRECTORY}/large": "x" * 2**20}
    (problem,) = problems_of("files: [{path: /a, source: ./huge}]", files=huge)
    assert problem.startswith("7:30: files hold at most 1 MiB each")
    many = "\n".join(f"- {{path: /{n}, source: ./large}}" for n in range(9))
    (problem,) = problems_of(f"files:\n{many}", files=huge)
    assert problem.startswith("16:24: files hold at most 1 MiB each and 8 MiB together")


def test_a_file_written_in_place_counts_with_the_others():
    large = "\n".join(f"- {{path: /{n}, source: ./large}}" for n in range(8))
    files = {f"{DIRECTORY}/large": "x" * 2**20}
    (problem,) = problems_of(f"files:\n{large}\n- {{path: /own, content: x}}", files=files)
    assert problem.startswith("16:5: files hold at most 1 MiB each and 8 MiB together")


def test_an_image_without_a_digest_is_refused():
    state = Repository({f"{DIRECTORY}/web.yaml": service(image="nginx:1.27")}).state()
    assert str(state.problems["web"][0]).startswith(f"{DIRECTORY}/web.yaml:6:10: image nginx:1.27 is not pinned")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nginx:1.27", "image nginx:1.27 is not pinned: a tag can move; write nginx:1.27@sha256:… with the digest"),
        ("nginx", "image nginx is not pinned"),
        (f"nginx@{DIGEST.upper()}", "the image's digest must be sha256: and 64 lower-case hex digits"),
        ("nginx@sha256:ab", "the image's digest must be sha256:"),
        (f"nginx:-x@{DIGEST}", "image tag '-x' is not valid"),
        (f"Nginx@{DIGEST}", "image name 'Nginx' is not valid"),
        (f"-h.x/nginx@{DIGEST}", "registry '-h.x' is not a host name"),
        (f"{'a' * 256}@{DIGEST}", "image name"),
        (f"r.test//x@{DIGEST}", "image name"),
        (f"@{DIGEST}", "image name"),
    ],
)
def test_an_image_must_be_pinned_and_valid(text, problem):
    found = image.parse(text)
    assert isinstance(found, str)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"nginx@{DIGEST}", ImageRef("nginx", DIGEST)),
        (f"nginx:1.27@{DIGEST}", ImageRef("nginx", DIGEST, "1.27")),
        (f"localhost:5000/a/b_c--d:v@{DIGEST}", ImageRef("localhost:5000/a/b_c--d", DIGEST, "v")),
        (f"[::1]:5000/a@{DIGEST}", ImageRef("[::1]:5000/a", DIGEST)),
        (f"localhost/a@{DIGEST}", ImageRef("localhost/a", DIGEST)),
    ],
)
def test_a_pinned_image_is_read_and_written_back(text, expected):
    assert image.parse(text) == expected
    assert str(expected) == text


def test_everything_wrong_is_said_at_once():
    found = problems_of("replica: 1\nenv: {A: 1.10, B: no}\nimage: x\ntmpfs: [{path: /sys, size: 1Mi}]\ndependsOn: 5")
    assert [problem.split(":")[0] for problem in found] == ["7", "8", "8", "9", "10", "11"]


@pytest.mark.parametrize("text", ["spec: 5", "- a", "metadata: {name: web}\nspec: {}", "5", "spec: {image: 5}"])
def test_a_file_that_is_no_manifest_has_problems_only(text):
    state = Repository({f"{DIRECTORY}/web.yaml": text}).state()
    assert state.problems["web"]


def test_the_name_is_that_of_the_file():
    state = Repository({f"{DIRECTORY}/api.yaml": service("web")}).state()
    assert [str(problem) for problem in state.problems["api"]] == [
        f'{DIRECTORY}/api.yaml:4:9: metadata.name is "web", but the file is named "api"; make them equal'
    ]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Servce", 'unknown kind "Servce"; did you mean "Service"?'),
        ("Environment", 'kind "Environment" belongs in environment.yaml; write kind: Service'),
    ],
)
def test_another_kind_is_refused_without_further_noise(kind, message):
    text = service().replace("kind: Service", f"kind: {kind}") + "  foo: 1\n"
    (problem,) = Repository({f"{DIRECTORY}/web.yaml": text}).state().problems["web"]
    assert (problem.line, problem.message, problem.reason) == (2, message, Reason.MANIFEST_INVALID)
