"""Manifests of kind Manifests: where the objects come from, what they come to as a service, and how they go wrong."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from reconciler.core import bundle, bundle_sources, manifest
from reconciler.core.bundle_rendering import Rendering, Tool
from reconciler.core.errors import Reason, Rejected, Stalled
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.model import Bundle, DriftPolicy, ServiceSpec
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas
from tests.support.bundles import CLUSTER, Bundles, config, manifests
from tests.support.fleet import DIRECTORY, Repository, environment, service

SHOP = {"apps/shop/a.yaml": config("a", "b")}
CHART = {"charts/x/Chart.yaml": "name: x", "charts/x/templates/a.yaml": "{{ x }}", "v.yaml": "a: 1"}


def names(found: Bundle) -> list[str]:
    return [each.name for each in bundle.identities(found)]


def test_a_directory_is_a_service_of_its_content():
    found = Bundles(SHOP).spec()
    assert found.bundle is not None
    assert names(found.bundle) == ["a", "b"]
    assert (found.bundle.source, found.bundle.prune) == ("apps/shop", True)
    assert found.image.pinned == f"manifests/shop@sha256:{found.bundle.digest}"
    assert (found.replicas, found.ports, found.drift, found.suspend) == (1, (), DriftPolicy.CORRECT, False)


def test_its_fields_are_those_of_a_service():
    spec = "{path: apps/shop, prune: false, dependsOn: [db], drift: report, suspend: true, progressDeadline: 90s}"
    found = Bundles({**SHOP, f"{DIRECTORY}/db.yaml": manifests("{path: apps/db}", "db"), "apps/db": config("c")}, spec)
    state = found.spec()
    assert state.bundle is not None
    assert not state.bundle.prune
    assert (state.depends_on, state.drift, state.suspend) == (("db",), DriftPolicy.REPORT, True)
    assert state.rollout.progress_deadline == timedelta(seconds=90)
    own = {f"{DIRECTORY}/environment.yaml": environment("{drift: report}")}
    assert Bundles({**SHOP, **own}).spec().drift is DriftPolicy.REPORT


def test_files_are_read_in_order_and_only_those_with_manifests():
    files = {
        "apps/shop/z.yaml": config("last"),
        "apps/shop/b/c.yml": config("second"),
        "apps/shop/b.json": json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "first"}}),
        "apps/shop/.hidden/x.yaml": "no",
        "apps/shop/.x.yaml": "no",
        "apps/shop/README.md": "no",
        "apps/shopping/x.yaml": "no",
    }
    assert names(Bundles(files).bundle()) == ["first", "second", "last"]


def test_objects_are_ordered_by_kind():
    text = "---\n".join(
        f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"
        for version, kind in (("x.io/v1", "Any"), ("apps/v1", "Deployment"), ("v1", "Service"), ("v1", "Secret"))
    )
    found = bundle.identities(Bundles({"apps/shop/a.yaml": text}).bundle())
    assert [each.kind for each in found] == ["Secret", "Service", "Deployment", "Any"]


@pytest.mark.parametrize("path", ["./here", "environments/prod/here", "../prod/here", "environments/prod/here/a.yaml"])
def test_a_path_begins_at_the_root_or_at_the_file(path):
    assert names(Bundles({f"{DIRECTORY}/here/a.yaml": config("a")}, f"{{path: {path}}}").bundle()) == ["a"]


def test_a_base_is_extended_and_its_paths_are_its_own():
    own = f"{manifests('{prune: false}')}extends: base/m.yaml\n"
    base = "kind: Manifests\nspec: {path: ./x}\n"
    files = {f"{DIRECTORY}/shop.yaml": own, "base/m.yaml": base, "base/x/a.yaml": config("a")}
    found = Bundles(files).bundle()
    assert (names(found), found.prune) == (["a"], False)


@pytest.mark.parametrize(
    ("files", "spec", "problem"),
    [
        ({}, "{path: apps/shop}", "shop.yaml:4:14: there is no file apps/shop in this revision"),
        ({}, "{path: ../../../x}", 'shop.yaml:4:14: path "../../../x" leaves the repository'),
        ({}, "{}", "shop.yaml:4:7: manifests are either at a path, with kustomize, or they are a chart (helm)"),
        (SHOP, "{path: apps/shop, helm: {chart: x}}", "shop.yaml:4:7: manifests are either at a path"),
        (SHOP, "{path: apps/shop, replicas: 2}", 'shop.yaml:4:25: unknown field "replicas"'),
        ({"apps/shop/README": ""}, "{path: apps/shop}", "shop.yaml:4:14: there is no object in apps/shop; a bundle is"),
        ({"apps/shop/a.yaml": "# none"}, "{path: apps/shop}", "shop.yaml:4:14: there is no object in apps/shop"),
        ({"apps/shop/a.yaml": "a: ["}, "{path: apps/shop}", "apps/shop/a.yaml:2:1: this is not YAML"),
        ({"apps/shop/a.yaml": config("a") * 2}, "{path: apps/shop}", "apps/shop/a.yaml:4:1: duplicate key"),
        (
            {"apps/shop/a.yaml": config("a", "a")},
            "{path: apps/shop}",
            "apps/shop/a.yaml:5:1: ConfigMap a is declared twice; remove one of the two",
        ),
        (
            {"apps/shop/a.yaml": config("a"), "apps/shop/b.yaml": config("a, namespace: prod")},
            "{path: apps/shop}",
            "apps/shop/b.yaml:1:1: ConfigMap prod/a is declared twice",
        ),
        (
            {"apps/shop/a.yaml": config("a, namespace: other")},
            "{path: apps/shop}",
            "apps/shop/a.yaml:1:1: ConfigMap other/a lies in namespace other",
        ),
        (CHART, "{path: charts/x}", "shop.yaml:4:14: charts/x is a Helm chart; declare it with helm.chart"),
        (CHART, "{helm: {chart: charts/y}}", "shop.yaml:4:22: there is no Chart.yaml in charts/y; name the directory"),
        (CHART, "{helm: {chart: /x}}", 'shop.yaml:4:22: path "/x" is absolute'),
        (CHART, "{helm: {chart: charts/x, values: [gone]}}", "shop.yaml:4:41: there is no file gone in this revision"),
        (
            {**SHOP, "apps/shop/x/kustomization.yaml": ""},
            "{path: apps/shop}",
            "shop.yaml:4:14: apps/shop/x/kustomization.yaml is a kustomization below apps/shop, which is none",
        ),
        (SHOP, "{path: apps/shop, kustomize: true}", "shop.yaml:4:14: there is no kustomization in apps/shop"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(files, spec, problem):
    assert Bundles(files, spec).said()[0].startswith(problem)


def test_the_file_is_named_as_it_is_and_for_a_cluster_only():
    found = Bundles({**SHOP, f"{DIRECTORY}/shop.yaml": manifests(name="web")})
    assert found.said(Allow()) == [
        "shop.yaml:2:7: manifests go to a Kubernetes cluster, and this environment runs on Docker; move the file "
        "(`reconciler validate`: name it with --kubernetes)",
        'shop.yaml:3:18: metadata.name is "web", but the file is named "shop"; make them equal',
    ]
    like = Bundles({f"{DIRECTORY}/a-0123456789ab.yaml": manifests(name="a-0123456789ab"), **SHOP})
    assert "that of a service's version" in like.said(name="a-0123456789ab")[0]


def test_an_unknown_kind_is_answered_with_the_known_ones():
    found = Bundles({f"{DIRECTORY}/shop.yaml": manifests().replace("kind: Manifests", "kind: Manifest")})
    assert found.said() == ['shop.yaml:2:7: unknown kind "Manifest"; did you mean "Manifests"?']


def test_denials_are_told_from_errors():
    state = Bundles({"apps/shop/a.yaml": config("a, namespace: x")}).state(CLUSTER)
    assert {problem.reason for problem in state.problems["shop"]} == {Reason.POLICY_DENIED}


def test_files_of_kustomize_are_left_out_where_it_is_not_wanted():
    files = {**SHOP, "apps/shop/kustomization.yaml": "resources: [a.yaml]", "apps/shop/b/Kustomization": ""}
    assert names(Bundles(files, "{path: apps/shop, kustomize: false}").bundle()) == ["a", "b"]


def test_a_bundle_is_bounded(monkeypatch):
    monkeypatch.setattr(bundle, "MAX_OBJECTS", 1)
    assert "these are 2 objects of" in Bundles(SHOP).said()[0]
    monkeypatch.setattr(bundle_sources, "MAX_FILES", 1)
    many = Bundles({**SHOP, "apps/shop/b.yaml": config("c")})
    assert many.said() == ["shop.yaml:4:14: there are 2 files below apps/shop, more than 1; split it"]
    chart = Bundles(CHART, "{helm: {chart: charts/x}}")
    assert chart.said() == ["shop.yaml:4:22: these are 2 files, more than 1; keep others elsewhere"]
    monkeypatch.setattr(bundle_sources, "MAX_FILES", 9)
    monkeypatch.setattr(bundle_sources, "MAX_BYTES", 9)
    assert "these files come to more than 9 bytes" in Bundles(CHART, "{helm: {chart: charts/x}}").said()[0]


def test_a_directory_that_may_not_be_read_is_a_problem_of_this_one_only():
    found = Bundles(
        {**SHOP, f"{DIRECTORY}/ok.yaml": manifests("{path: ./ok}", "ok"), f"{DIRECTORY}/ok/a.yaml": config("x")}
    )
    found.hostile["apps/shop"] = Rejected(Reason.REPOSITORY_HOSTILE, "apps/shop/x is a symbolic link")
    state = found.state(CLUSTER)
    assert list(state.services) == ["ok"]
    assert state.problems["shop"][0].reason is Reason.REPOSITORY_HOSTILE
    assert Bundles({}).said()[0].startswith("shop.yaml:4:14: there is no file")


def test_a_kustomization_is_rendered_out_of_its_own_files():
    files = {"apps/shop/kustomization.yaml": "resources: [a.yaml]", **SHOP}
    found = Bundles(files)
    found.rendered = config("rendered").encode()
    assert names(found.bundle()) == ["rendered"]
    assert found.renderings == [
        Rendering(
            Tool.KUSTOMIZE,
            (
                ("apps/shop/a.yaml", config("a", "b").encode()),
                ("apps/shop/kustomization.yaml", b'{"resources": ["./a.yaml"]}'),
            ),
            "apps/shop",
        )
    ]


def test_a_chart_is_rendered_with_its_values():
    spec = (
        "{helm: {chart: charts/x, values: [v.yaml, ../../v.yaml], set: {b: {c: 2}}, release: r, namespace: n, "
        'kubeVersion: "1.37", apiVersions: [x.io/v1]}}'
    )
    found = Bundles(CHART, spec)
    found.rendered = config("rendered").encode()
    assert names(found.bundle()) == ["rendered"]
    assert found.renderings == [
        Rendering(
            Tool.HELM,
            (
                ("chart/Chart.yaml", b"name: x"),
                ("chart/templates/a.yaml", b"{{ x }}"),
                ("values/0.yaml", b"a: 1"),
                ("values/1.yaml", b"a: 1"),
                ("values/2.yaml", b'{"b": {"c": 2}}'),
            ),
            "chart",
            "r",
            "n",
            ("values/0.yaml", "values/1.yaml", "values/2.yaml"),
            "1.37",
            ("x.io/v1",),
        )
    ]


@pytest.mark.parametrize(("allow", "namespace"), [(CLUSTER, "prod"), (Allow(native=True), "default")])
def test_a_chart_gets_the_name_and_the_namespace_of_its_environment(allow, namespace):
    found = Bundles(CHART, "{helm: {chart: charts/x}}")
    found.rendered = config("a").encode()
    found.bundle(allow)
    assert [(each.release, each.namespace) for each in found.renderings] == [("shop", namespace)]


def test_what_is_rendered_tells_itself_apart_by_all_of_it():
    plain = Rendering(Tool.HELM, (("a", b"b"),), "c")
    others = [
        Rendering(Tool.KUSTOMIZE, (("a", b"b"),), "c"),
        Rendering(Tool.HELM, (("a", b"c"),), "c"),
        Rendering(Tool.HELM, (("a", b"b"),), "c", values=("x",)),
        Rendering(Tool.HELM, (("a", b"b"),), "c", api_versions=("x",)),
        Rendering(Tool.HELM, (("a", b"b"),), "c", release="x"),
        Rendering(Tool.HELM, (("a", b"b"),), "c", namespace="x"),
    ]
    assert len({each.digest for each in (plain, *others)}) == 1 + len(others)


HOOK = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: h, annotations: {helm.sh/hook: pre-install}}\n"


def test_a_chart_with_hooks_is_refused_unless_it_is_to_go_without():
    found = Bundles(CHART, "{helm: {chart: charts/x}}")
    found.rendered = f"{config('a')}---\n{HOOK}".encode()
    assert found.said() == [
        "shop.yaml:4:22: the chart has hooks, which are not run here: Job h; with skipHooks: true the rest of it is "
        "applied without them"
    ]
    found = Bundles(CHART, "{helm: {chart: charts/x, skipHooks: true}}")
    found.rendered = f"{config('a')}---\n{HOOK}".encode()
    assert names(found.bundle()) == ["a"]


def test_what_comes_out_of_a_renderer_is_judged_as_well():
    found = Bundles(CHART, "{helm: {chart: charts/x}}")
    found.rendered = b"\n".join(b"a: yes\n---" for _ in range(7))
    line = found.said()[0]
    assert line.startswith("shop.yaml:4:22: in what helm makes of charts/x, line 1: not every reader takes yes for")
    assert line.endswith(" and 2 more")
    found = Bundles(CHART, "{helm: {chart: charts/x}}")
    found.rendered = config("a", "b, namespace: x").encode()
    assert found.said()[0].startswith("shop.yaml:4:22: ConfigMap x/b lies in namespace x")


def test_what_a_renderer_refuses_is_a_problem_and_is_remembered():
    found = Bundles(CHART, "{helm: {chart: charts/x}}")
    found.rendered = Rejected(Reason.MANIFEST_INVALID, "helm cannot render this: no such value")
    assert found.said() == ["shop.yaml:4:22: helm cannot render this: no such value"]
    assert found.said()
    assert len(found.renderings) == 1


def test_trouble_of_a_renderer_is_a_problem_for_now_only():
    found = Bundles(
        {**CHART, f"{DIRECTORY}/web.yaml": manifests("{path: ./x}", "web"), f"{DIRECTORY}/x/a.yaml": config("a")}
    )
    found.files[f"{DIRECTORY}/shop.yaml"] = manifests("{helm: {chart: charts/x}}").encode()
    found.rendered = Stalled(Reason.SETTINGS_INVALID, "no helm")
    state = found.state(CLUSTER)
    assert (list(state.services), [str(each) for each in state.problems["shop"]]) == (
        ["web"],
        [f"{DIRECTORY}/shop.yaml:4:1: no helm"],
    )
    with pytest.raises(Stalled, match="no helm"):
        parse_one(found)
    found.rendered = config("a2").encode()
    assert names(found.bundle()) == ["a2"]
    assert isinstance(parse_one(found), ServiceSpec)


def parse_one(found: Repository) -> object:
    return manifest.parse_service("prod", "shop", found.fleet, schemas=load_schemas(), allow=CLUSTER, cache=found.cache)


def test_where_nothing_renders_it_is_said():
    found = Repository(
        {
            f"{DIRECTORY}/shop.yaml": manifests("{path: ./x}"),
            f"{DIRECTORY}/x/kustomization.yaml": "resources: []",
        }
    )
    problem = found.state(CLUSTER).problems["shop"][0]
    assert (problem.reason, problem.message) == (
        Reason.SETTINGS_INVALID,
        "kustomize is needed to render environments/prod/x, and nothing here can run it",
    )


def test_only_what_changed_is_read_again():
    found = Bundles({**SHOP, "apps/shop/b.yaml": config("c")})
    found.bundle()
    found.reads.clear()
    found.bundle()
    assert found.reads == []
    found.files["apps/shop/b.yaml"] = config("d").encode()
    assert names(found.bundle()) == ["a", "b", "d"]
    assert found.reads == ["apps/shop/b.yaml"]
    found.files["apps/shop/c.yaml"] = config("e").encode()
    assert names(found.bundle()) == ["a", "b", "d", "e"]
    del found.files["apps/shop/a.yaml"]
    assert names(found.bundle()) == ["d", "e"]


@pytest.mark.parametrize("changed", ["v.yaml", "charts/x/templates/a.yaml", "charts/x/new"])
def test_a_chart_is_rendered_again_when_one_of_its_inputs_changed(changed):
    found = Bundles(CHART, "{helm: {chart: charts/x, values: [v.yaml]}}")
    found.rendered = config("a").encode()
    found.bundle()
    found.bundle()
    assert len(found.renderings) == 1
    found.files[changed] = b"b: 2"
    found.bundle()
    assert len(found.renderings) == 2


def test_identities_lie_in_the_namespace_of_their_environment():
    text = f"{config('a', 'b, namespace: x')}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: ns}}\n"
    found = Bundles({"apps/shop/a.yaml": text}).bundle(Allow(native=True, cluster_scoped=True, namespaces=("x",)))
    assert bundle.identities(found, "prod") == (
        Identity("", "Namespace", "", "ns"),
        Identity("", "ConfigMap", "prod", "a"),
        Identity("", "ConfigMap", "x", "b"),
    )


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ("apps/v1 Deployment web", "Deployment prod/web is made for service web; rename one of them"),
        ("v1 Service web-0123456789ab", "Service prod/web-0123456789ab is made for service web; rename one of them"),
        ("v1 Service web-0", None),
        ("x.io/v1 Deployment web", None),
        ("batch/v1 Job web", None),
        ("v1 ConfigMap shop", None),
        ("v1 ConfigMap other-inventory", None),
        (
            "v1 ConfigMap shop-inventory",
            "ConfigMap prod/shop-inventory is where it is kept what shop consists of; rename it",
        ),
    ],
)
def test_objects_of_services_are_not_those_of_bundles(own, problem):
    version, kind, name = own.split()
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n"
    found = Bundles({"apps/shop/a.yaml": text, f"{DIRECTORY}/web.yaml": service()})
    if problem is None:
        assert found.bundle()
    else:
        assert found.said() == [f"shop.yaml:4:1: {problem}"]
        assert "web" in found.state(CLUSTER).services


def test_an_object_belongs_to_one_bundle():
    other = {f"{DIRECTORY}/other.yaml": manifests("{path: ./o}", "other")}
    found = Bundles({**SHOP, **other, f"{DIRECTORY}/o/a.yaml": config("x", "b, namespace: prod", "a")})
    assert found.said() == ["shop.yaml:4:1: ConfigMap prod/b is also declared by other; remove it from all but one"]
    assert len(found.said(name="other")) == 1
    found.files[f"{DIRECTORY}/o/a.yaml"] = config("x").encode()
    assert set(found.state(CLUSTER).services) == {"shop", "other"}
