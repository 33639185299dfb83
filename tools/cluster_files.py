"""The configuration of the tests' own cluster: one function for each file or command line, from a plan of addresses.

Nothing here reads the machine or starts anything. What is unusual serves machines with cgroup v1 and few privileges.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODE = "node-1"
PORT = 6443
SOCKET = "unix:///run/containerd/containerd.sock"
PAUSE = "reconciler.invalid/pause:1"
GRACE = "5m"
"""How long the node may be silent before it counts as NotReady: longer than any test takes the API server away. Tests
that want it sooner say so."""


@dataclass(frozen=True)
class Plan:
    """Where everything of one cluster lives. `base` is a private /18; its parts follow from it."""

    directory: Path
    base: str

    def _part(self, offset: int, prefix: int) -> ipaddress.IPv4Network:
        first = ipaddress.IPv4Network(self.base).network_address
        return ipaddress.IPv4Network((first + offset * 256, prefix))

    @property
    def machine(self) -> str:
        """The address of this machine on the link to the node."""
        return str(self._part(0, 30)[1])

    @property
    def address(self) -> str:
        """The address of the node on that link; the API server listens on it."""
        return str(self._part(0, 30)[2])

    @property
    def services(self) -> str:
        """Cluster addresses of Services: 4,094."""
        return str(self._part(16, 20))

    @property
    def pods(self) -> str:
        """Addresses of pods: 8,190."""
        return str(self._part(32, 19))

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return f"https://{self.address}:{PORT}"

    @property
    def name(self) -> str:
        """Unique on this machine, and short enough for the name of a link."""
        octets = self.base.split("/")[0].split(".")
        return f"rkube-{octets[1]}-{octets[2]}"

    def file(self, name: str) -> str:
        """A file of the cluster's directory."""
        return str(self.directory / name)


def write(plan: Plan, snapshotter: str, plugins: str) -> None:
    """Write every configuration file. `plugins` is the directory of the CNI programs."""
    for folder in ("cni", "certs.d", "pods", "kubelet", "pki"):
        (plan.directory / folder).mkdir(mode=0o700, exist_ok=True)
    (plan.directory / "containerd.toml").write_text(_containerd(plan, snapshotter, plugins))
    (plan.directory / "resolv.conf").write_text("options ndots:1\n")
    documents = {
        "cni/10-tests.conflist": _network(plan),
        "kubelet.json": _kubelet(plan),
        "proxy.json": _proxy(plan),
        "audit.json": _audit(),
    }
    for name, document in documents.items():
        (plan.directory / name).write_text(json.dumps(document, indent=1))


def commands(plan: Plan, node: Path, containerd: str) -> dict[str, list[str]]:
    """Each component with its command, in the order of starting."""
    program = str(node)
    return {
        "etcd": [program, "etcd", f"--data={plan.file('etcd')}"],
        "containerd": [containerd, f"--config={plan.file('containerd.toml')}"],
        "apiserver": [program, "apiserver", *_api_server(plan)],
        "controllers": [program, "controllers", *_controllers(plan)],
        "scheduler": [program, "scheduler", *_clients(plan, "scheduler"), "--profiling=false", "--leader-elect=false"],
        "kubelet": [
            *(program, "kubelet", f"--config={plan.file('kubelet.json')}", f"--hostname-override={NODE}"),
            *(f"--kubeconfig={plan.file('pki/kubelet.kubeconfig')}", f"--node-ip={plan.address}"),
            *(f"--root-dir={plan.file('kubelet')}", f"--cert-dir={plan.file('pki')}"),
        ],
        "proxy": [program, "proxy", f"--config={plan.file('proxy.json')}"],
        "dns": [program, "dns", f"--kubeconfig={plan.file('pki/dns.kubeconfig')}", f"--address={plan.address}:53"],
    }


def _api_server(plan: Plan) -> list[str]:
    pki = plan.directory / "pki"
    return [
        *(f"--advertise-address={plan.address}", f"--bind-address={plan.address}", f"--secure-port={PORT}"),
        *("--etcd-servers=http://127.0.0.1:2379", f"--service-cluster-ip-range={plan.services}"),
        *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
        *(f"--client-ca-file={pki}/ca.crt", "--authorization-mode=Node,RBAC"),
        *(f"--service-account-key-file={pki}/accounts.key", f"--service-account-signing-key-file={pki}/accounts.key"),
        *("--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--allow-privileged=true"),
        *("--enable-admission-plugins=NodeRestriction", "--profiling=false"),
        # The way to aggregated APIs; the other parts complain all the time where it is not set up.
        *(f"--requestheader-client-ca-file={pki}/ca.crt", "--requestheader-allowed-names=front-proxy"),
        *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
        *(f"--proxy-client-cert-file={pki}/front-proxy.crt", f"--proxy-client-key-file={pki}/front-proxy.key"),
        f"--kubelet-client-certificate={pki}/apiserver-calls.crt",
        *(f"--kubelet-client-key={pki}/apiserver-calls.key", "--kubelet-preferred-address-types=InternalIP"),
        *(f"--audit-policy-file={plan.file('audit.json')}", f"--audit-log-path={plan.file('audit.log')}"),
        "--audit-log-maxbackup=1",
    ]


def _clients(plan: Plan, name: str) -> list[str]:
    own = plan.file(f"pki/{name}.kubeconfig")
    return [
        *(f"--kubeconfig={own}", f"--authentication-kubeconfig={own}", f"--authorization-kubeconfig={own}"),
        # Everything within the room may ask for their figures; nothing from without can.
        "--bind-address=127.0.0.1",
    ]


def _controllers(plan: Plan) -> list[str]:
    return [
        *_clients(plan, "controllers"),
        *("--leader-elect=false", "--profiling=false", "--use-service-account-credentials"),
        *(f"--root-ca-file={plan.file('pki/ca.crt')}",),
        f"--service-account-private-key-file={plan.file('pki/accounts.key')}",
        *(f"--node-monitor-grace-period={GRACE}", "--node-monitor-period=1s"),
        # Tests make many objects at once, and there is nobody else to be polite to.
        *("--kube-api-qps=300", "--kube-api-burst=600", "--horizontal-pod-autoscaler-sync-period=3s"),
    ]


def _kubelet(plan: Plan) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": plan.file("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": SOCKET,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{plan.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "protectKernelDefaults": True,  # the room shows the values it wants; it must not write any
        "oomScoreAdj": 0,  # a lower one needs a privilege that containers often lack
        "resolvConf": plan.file("resolv.conf"),
        "clusterDNS": [plan.address],
        "clusterDomain": "cluster.local",
        "podLogsDir": plan.file("pods"),
        "volumePluginDir": plan.file("kubelet/plugins"),
        # The disk belongs to others, too: what fills it is no reason to evict pods here.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"),
        "maxPods": 500,
        "serializeImagePulls": False,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "nodeStatusUpdateFrequency": "2s",
        "nodeLeaseDurationSeconds": 6,
    }


def _proxy(plan: Plan) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": NODE,
        "clusterCIDR": plan.pods,
        "clientConnection": {"kubeconfig": plan.file("pki/proxy.kubeconfig")},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "100ms"},
        # These would change the whole machine, and are often read-only.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _network(plan: Plan) -> dict[str, Any]:
    # Point to point and routed: unlike a bridge it needs no br_netfilter for answers to come back through the proxy.
    pods = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": plan.pods}]]}
    return {
        "cniVersion": "0.4.0",
        "name": "tests",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": {**pods, "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _audit() -> dict[str, Any]:
    """Who asked for what, the cluster's own parts left out: tests count calls by it."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {"level": "None", "users": ["system:apiserver", "system:kube-scheduler", "system:kube-proxy"]},
            {"level": "None", "users": ["system:kube-controller-manager", "system:anonymous", "dns"]},
            {"level": "Metadata"},
        ],
    }


def _containerd(plan: Plan, snapshotter: str, plugins: str) -> str:
    """Version 2 of the format, which releases 1.3 to 2.x read."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    tables: dict[str, dict[str, object]] = {
        "grpc": {"address": SOCKET.removeprefix("unix://")},
        # A profile of AppArmor would stay in the kernel for good.
        cri: {"sandbox_image": PAUSE, "restrict_oom_score_adj": True, "disable_apparmor": True},
        f"{cri}.containerd": {"snapshotter": snapshotter, "default_runtime_name": "runc"},
        f"{cri}.containerd.runtimes.runc": {"runtime_type": "io.containerd.runc.v2"},
        f"{cri}.containerd.runtimes.runc.options": {"SystemdCgroup": False},
        f"{cri}.cni": {"bin_dir": plugins, "conf_dir": plan.file("cni")},
        f"{cri}.registry": {"config_path": plan.file("certs.d")},
    }
    unneeded = [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
    top: dict[str, object] = {
        "version": 2,
        "root": plan.file("containerd"),
        "state": "/run/containerd",
        "disabled_plugins": [*unneeded, "io.containerd.internal.v1.opt"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"  {key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def mirror(plan: Plan, registry: str) -> None:
    """Let containerd speak plain HTTP to `registry`, host:port on this machine's loopback."""
    folder = plan.directory / "certs.d" / registry
    folder.mkdir(exist_ok=True)
    url = json.dumps(f"http://{registry}")
    (folder / "hosts.toml").write_text(f'server = {url}\n[host.{url}]\n  capabilities = ["pull", "resolve"]\n')
