"""Kustomizations and charts rendered by the real programs, hostile ones among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from reconciler.adapters.rendering import ProgramRenderer
from reconciler.core import bundle
from reconciler.core.bundle_rendering import Rendering
from reconciler.core.policy import Allow
from tests.support.bundles import CLUSTER, Bundles, config
from tests.support.fake_runtime import HandClock
from tests.support.listener import listening
from tests.support.renderers import search

CLOCK = HandClock()


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> ProgramRenderer:
    return ProgramRenderer(CLOCK, tmp_path_factory.mktemp("work"), search=search(tmp_path_factory.mktemp("bin")))


class Repository(Bundles):
    """A repository whose bundle is rendered by real programs."""

    def __init__(self, renderer: ProgramRenderer, files: dict[str, str], spec: str = "{path: apps/shop}") -> None:
        super().__init__(files, spec)
        self.renderer = renderer

    def render(self, rendering: Rendering) -> bytes:
        self.renderings.append(rendering)
        return self.renderer.render(rendering)


def objects(found: Bundles, allow: Allow = CLUSTER) -> dict[str, dict[str, object]]:
    return {
        str(each): json.loads(data)
        for data in found.bundle(allow).objects
        for each in [bundle.kubernetes_identity.identity(json.loads(data))]
    }


DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "example.org/web:1"}]}
"""
KUSTOMIZED = {
    "apps/base/kustomization.yaml": "resources: [deployment.yaml]\n",
    "apps/base/deployment.yaml": DEPLOYMENT,
    "apps/shop/kustomization.yaml": """
resources: [../base]
namespace: prod
namePrefix: shop-
commonAnnotations: {home: "https://example.org/"}
images: [{name: example.org/web, newTag: "2"}]
patches:
- target: {kind: Deployment}
  patch: |-
    - {op: add, path: /spec/replicas, value: 3}
configMapGenerator:
- {name: files, files: [a.conf], literals: [X=yes]}
transformers: [labels.yaml]
""",
    "apps/shop/labels.yaml": """apiVersion: builtin
kind: LabelTransformer
metadata: {name: labels}
labels: {team: shop}
fieldSpecs: [{path: metadata/labels, create: true}]
""",
    "apps/shop/a.conf": "a = 1\n",
}


def test_a_kustomization_becomes_its_objects(renderer: ProgramRenderer) -> None:
    found = objects(Repository(renderer, KUSTOMIZED))
    (first, deployment) = found
    assert first.startswith("/ConfigMap/prod/shop-files-")
    assert found[first]["data"] == {"a.conf": "a = 1\n", "X": "yes"}
    assert deployment == "apps/Deployment/prod/shop-web"
    assert found[deployment]["metadata"]["labels"] == {"team": "shop"}
    assert found[deployment]["spec"]["replicas"] == 3
    assert found[deployment]["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/web:2"


CHART = {
    "charts/shop/Chart.yaml": """apiVersion: v2
name: shop
version: 0.1.0
dependencies: [{name: part, version: 0.1.0}]
""",
    "charts/shop/values.yaml": "replicas: 1\nname: plain\n",
    "charts/shop/crds/crd.yaml": """apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
""",
    "charts/shop/templates/_helpers.tpl": '{{ define "shop.name" }}{{ .Release.Name }}-{{ .Values.name }}{{ end }}',
    "charts/shop/templates/a.yaml": """apiVersion: v1
kind: ConfigMap
metadata: {name: {{ include "shop.name" . }}, namespace: {{ .Release.Namespace }}}
data:
  replicas: {{ .Values.replicas | quote }}
  more: {{ .Values.more | quote }}
  host: {{ getHostByName "localhost" | quote }}
  passwd: {{ .Files.Get "/etc/passwd" | quote }}
  up: {{ .Files.Get "../../../../etc/passwd" | quote }}
  live: {{ lookup "v1" "Namespace" "" "kube-system" | toJson | quote }}
  version: {{ .Capabilities.KubeVersion.Version | quote }}
  has: {{ .Capabilities.APIVersions.Has "x.io/v1" | quote }}
""",
    "charts/shop/templates/tests/t.yaml": """apiVersion: v1
kind: Pod
metadata: {name: t, annotations: {helm.sh/hook: test}}
""",
    "charts/shop/charts/part/Chart.yaml": "apiVersion: v2\nname: part\nversion: 0.1.0\n",
    "charts/shop/charts/part/templates/b.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: part}\n",
    "values/prod.yaml": "replicas: 2\nname: prod\n",
}
VALUES = (
    '{helm: {chart: charts/shop, values: [values/prod.yaml], set: {more: "a,b={c}"}, kubeVersion: "1.30.1", '
    "apiVersions: [x.io/v1]}}"
)


def test_a_chart_becomes_its_objects_without_looking_elsewhere(renderer: ProgramRenderer) -> None:
    found = objects(Repository(renderer, CHART, VALUES), Allow(native=True, namespace="prod", cluster_scoped=True))
    assert list(found) == [
        "apiextensions.k8s.io/CustomResourceDefinition//things.example.org",
        "/ConfigMap//part",
        "/ConfigMap/prod/shop-prod",
    ]
    assert found["/ConfigMap/prod/shop-prod"]["data"] == {
        "replicas": "2",
        "more": "a,b={c}",
        "host": "",
        "passwd": "",
        "up": "",
        "live": "{}",
        "version": "v1.30.1",
        "has": "true",
    }


def chart(template: str, **more: str) -> dict[str, str]:
    return {
        "charts/x/Chart.yaml": "apiVersion: v2\nname: x\nversion: 0.1.0\n",
        "charts/x/templates/a.yaml": template,
        **more,
    }


HELM = "{helm: {chart: charts/x}}"


@pytest.mark.parametrize(
    "drawn", ["randAlphaNum 20", "uuidv4", 'now | date "150405.000000000"', 'genPrivateKey "ecdsa" | b64enc']
)
def test_a_chart_that_comes_out_otherwise_each_time_is_refused(renderer: ProgramRenderer, drawn: str) -> None:
    template = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\nstringData:\n  x: |-\n    {{{{ {drawn} }}}}\n"
    (said,) = Repository(renderer, chart(template), HELM).said()
    assert said == (
        "shop.yaml:4:22: helm makes something else of this chart each time it is asked. Give the values that the chart "
        "makes up by itself (passwords, certificates, times)"
    )


@pytest.mark.parametrize(
    ("files", "spec", "said"),
    [
        (chart("{{ .Values.a.b.c }}"), HELM, "helm cannot render this: "),
        (chart('{{ fail "no \u0007 such value" }}'), HELM, "no ? such value"),
        (chart("{{ if }}"), HELM, "helm cannot render this: "),
        (chart("{{ range until 2000000000 }}x{{ end }}"), HELM, "helm"),
        (chart('{{ define "a" }}{{ include "a" . }}{{ end }}{{ include "a" . }}'), HELM, "helm cannot render this: "),
        (chart(config("a"), **{"charts/x/Chart.yaml": "a: ["}), HELM, "helm cannot render this: "),
        (
            chart(
                config("a"),
                **{
                    "charts/x/Chart.yaml": "apiVersion: v2\nname: x\nversion: 0.1.0\ndependencies:\n"
                    "- {name: far, version: 1.0.0, repository: 'https://127.0.0.1:1/'}\n"
                },
            ),
            HELM,
            "far",
        ),
        (
            {"apps/shop/kustomization.yaml": "resources: [a.yaml]", "apps/shop/a.yaml": "a: ["},
            "{path: apps/shop}",
            "kust",
        ),
        (
            {"apps/shop/kustomization.yaml": "configMapGenerator: [{name: a, files: [/etc/passwd]}]"},
            "{path: apps/shop}",
            "kustomize cannot render this: ",
        ),
        (
            {"apps/shop/kustomization.yaml": "configMapGenerator: [{name: a, files: [../../../../../../etc/passwd]}]"},
            "{path: apps/shop}",
            "kustomize cannot render this: ",
        ),
        (
            {
                "apps/shop/kustomization.yaml": "generators: [g.yaml]",
                "apps/shop/g.yaml": "apiVersion: x/v1\nkind: X\nmetadata:\n  name: a\n  annotations:\n"
                "    config.kubernetes.io/function: |\n      exec: {path: ./run.sh}\n",
                "apps/shop/run.sh": "#!/bin/sh\ntouch /tmp/ran\n",
            },
            "{path: apps/shop}",
            "kustomize cannot render this: ",
        ),
        (
            {
                "apps/shop/kustomization.yaml": "resources: [a.yaml]\nkind: [",
                "apps/shop/a.yaml": config("a"),
            },
            "{path: apps/shop}",
            "this is not YAML",
        ),
    ],
)
def test_what_cannot_be_rendered_is_said_in_a_bounded_line(
    renderer: ProgramRenderer, files: dict[str, str], spec: str, said: str
) -> None:
    (line,) = Repository(renderer, files, spec).said()
    assert said in line
    assert "rendering-" not in line
    assert len(line) < 800
    assert line.isprintable()


@pytest.fixture
def address() -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine, and what it was asked for."""
    with listening(config("fetched").encode()) as found:
        yield found


FETCHING: list[Callable[[str], tuple[dict[str, str], str]]] = [
    lambda url: ({"apps/shop/kustomization.yaml": f"resources: ['{url}/a.yaml']"}, "{path: apps/shop}"),
    lambda url: ({"apps/shop/kustomization.yaml": f"patches: [{{path: '{url}/a.yaml'}}]"}, "{path: apps/shop}"),
    lambda url: ({"apps/shop/kustomization.yaml": f"components: ['{url}/x.git']"}, "{path: apps/shop}"),
    lambda url: (
        {"apps/shop/kustomization.yaml": f"configMapGenerator: [{{name: a, files: ['x={url}/a']}}]"},
        "{path: apps/shop}",
    ),
    lambda url: (
        {
            "apps/shop/kustomization.yaml": "generators: [g.yaml]",
            "apps/shop/g.yaml": "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: a}\n"
            f"files: ['x={url}/a']\n",
        },
        "{path: apps/shop}",
    ),
    lambda url: ({"apps/shop/kustomization.yaml": f"openapi: {{path: '{url}/a'}}"}, "{path: apps/shop}"),
    lambda url: ({"apps/shop/kustomization.yaml": f"crds: ['{url}/a']"}, "{path: apps/shop}"),
    lambda url: (
        {"apps/shop/kustomization.yaml": f"helmCharts: [{{name: a, repo: '{url}', releaseName: a}}]"},
        "{path: apps/shop}",
    ),
    lambda url: (
        chart(config("a"), **{"charts/x/values.schema.json": json.dumps({"$ref": f"{url}/schema.json"})}),
        HELM,
    ),
    lambda url: (
        chart(
            config("a"),
            **{
                "charts/x/Chart.yaml": "apiVersion: v2\nname: x\nversion: 0.1.0\n"
                f"dependencies: [{{name: far, version: 1.0.0, repository: '{url}'}}]\n"
            },
        ),
        HELM,
    ),
]


@pytest.mark.parametrize("make", FETCHING)
def test_nothing_is_ever_fetched(
    renderer: ProgramRenderer, address: tuple[str, list[str]], make: Callable[[str], tuple[dict[str, str], str]]
) -> None:
    url, hits = address
    Repository(renderer, *make(url)).state(CLUSTER)
    assert hits == []
