"""Services for the tests of Kubernetes' objects: one with everything, and any that the schema and the rules allow."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st

from reconciler.core import groups, names
from reconciler.core.delivery import Rollout, Route, Scaling, Strategy, Volume
from reconciler.core.kubernetes_labels import Place
from reconciler.core.model import (
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
from reconciler.core.steps import EnsureGroup, GroupShare, RouteGroups

PLACE = Place("default", "shop")
ENVIRONMENT = "production"
VERSION = "a" * 64
OTHER = "b" * 64
SECRETS = {"Db_password": "v1", "token": "v2"}

RICH = ServiceSpec(
    name="web",
    image=ImageRef("registry.test/web", "sha256:" + "1" * 64, "1.0"),
    replicas=3,
    command=("/app", "$(HOME)"),
    args=("a$$b", ""),
    env={"B": "", "A": "x$y"},
    files=(File("/etc/app/a.conf", b"hello"), File("/etc/app/b.bin", b"\xff\x00", 0o400)),
    secrets=(
        SecretUse("Db_password", SecretTarget.ENV, "PASSWORD"),
        SecretUse("Db_password", SecretTarget.FILE, "/run/secrets/db"),
        SecretUse("Db_password", SecretTarget.FILE, "/run/secrets/again"),
        SecretUse("token", SecretTarget.FILE, "/run/secrets/token"),
    ),
    ports=(Port("http", 8080), Port("a-long-name-for-a-port", 9090), Port("dns", 53, "udp")),
    resources=Resources(memory=500_000_000, nano_cpus=1_500_000_000, pids=10),
    tmpfs=(Tmpfs("/tmp", 64 * 2**20),),
    security=Security(user="1000:2000", capabilities=("NET_BIND_SERVICE",)),
    health=Health(HttpCheck(8080, "/healthz"), interval=timedelta(milliseconds=500)),
    labels={"team": "shop"},
    volumes=(Volume("data", "/data", shared=True, read_only=True), Volume("cache", "/cache", shared=True)),
    rollout=Rollout(progress_deadline=timedelta(seconds=90)),
    route=Route(
        8080,
        hosts=("www.example.org", "*.shop.example.org"),
        paths=("/", "/api"),
        preview="next.example.org",
        timeout=timedelta(seconds=90, milliseconds=500),
    ),
)
PLAIN = ServiceSpec(name="plain", image=ImageRef("registry.test/plain", "sha256:" + "2" * 64))


def ensure(spec: ServiceSpec, replicas: int | None = 1, **changes: object) -> EnsureGroup:
    """The order to declare a service's group: one for all versions, or the version's own where its strategy says so."""
    version = str(changes.get("version", VERSION))
    name = names.group(spec.name, version if groups.of_its_own(spec) else "")
    known = {
        "name": name,
        "environment": ENVIRONMENT,
        "spec": spec,
        "version": version,
        "revision": "r1",
        "replicas": replicas,
        "first": 1,
        "operated": groups.operated(spec, replicas),
    }
    return EnsureGroup(**{**known, **changes})


def lead(spec: ServiceSpec, shares: dict[str, int], *, mixed: bool = False, preview: str = "") -> RouteGroups:
    """The order to lead requests to the groups of the versions in `shares`; "" is the group for all versions."""
    table = tuple(
        GroupShare(names.group(spec.name, version), version or VERSION, weight) for version, weight in shares.items()
    )
    digest = groups.route_operated(spec, exact=True)
    return RouteGroups(spec.name, ENVIRONMENT, spec, table, mixed, digest, preview)


name = st.from_regex(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
variable = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)


def paths(directory: str) -> st.SearchStrategy[str]:
    """Paths below a directory; those below different ones never meet."""
    return st.integers(0, 99).map(lambda number: f"/{directory}/{number}.d/a_file")


duration = st.integers(0, 10**7).map(lambda milliseconds: timedelta(milliseconds=milliseconds))
positive = st.integers(1, 10**7).map(lambda milliseconds: timedelta(milliseconds=milliseconds))
checks = st.one_of(
    st.none(),
    st.builds(HttpCheck, st.integers(1, 65535), st.just("/")),
    st.builds(TcpCheck, st.integers(1, 65535)),
    st.builds(ExecCheck, st.lists(st.text(max_size=5), min_size=1, max_size=3).map(tuple)),
)
rollouts = st.builds(
    Rollout,
    strategy=st.sampled_from(Strategy),
    surge=st.integers(0, 10),
    unavailable=st.integers(0, 10),
    progress_deadline=positive,
)
secrets = st.one_of(
    st.builds(SecretUse, st.sampled_from(sorted(SECRETS)), st.just(SecretTarget.ENV), variable.map("SECRET_{}".format)),
    st.builds(SecretUse, st.sampled_from(sorted(SECRETS)), st.just(SecretTarget.FILE), paths("run")),
)
specs = st.builds(
    ServiceSpec,
    name=name,
    image=st.sampled_from([RICH.image, PLAIN.image]),
    replicas=st.integers(0, 5),
    command=st.lists(st.text(max_size=10), max_size=3).map(tuple),
    env=st.dictionaries(variable, st.text(max_size=10), max_size=4),
    files=st.lists(st.builds(File, paths("etc"), st.binary(max_size=20)), max_size=3, unique_by=lambda f: f.path).map(
        tuple
    ),
    secrets=st.lists(secrets, max_size=3, unique_by=lambda use: use.target).map(tuple),
    ports=st.lists(
        st.builds(Port, name, st.integers(1, 65535), st.sampled_from(["tcp", "udp"])),
        max_size=3,
        unique_by=(lambda port: port.name, lambda port: port.container),
    ).map(tuple),
    resources=st.builds(
        Resources,
        memory=st.none() | st.integers(6 * 2**20, 2**45),
        nano_cpus=st.none() | st.integers(10**7, 10**13),
    ),
    tmpfs=st.lists(
        st.builds(Tmpfs, paths("tmp"), st.integers(4096, 2**40)), max_size=2, unique_by=lambda tmpfs: tmpfs.path
    ).map(tuple),
    security=st.sampled_from([Security(), Security(user="1000"), Security(user="0:0", privileged=True)]),
    health=st.builds(Health, checks, positive, positive, st.integers(1, 100), st.integers(1, 100), duration),
    rollout=rollouts,
    route=st.none() | st.builds(Route, st.integers(1, 65535), hosts=st.just(("a.test",)), preview=st.just("b.test")),
    scaling=st.none() | st.builds(Scaling, st.integers(1, 3), st.integers(3, 9), cpu=st.floats(0.01, 100)),
)
