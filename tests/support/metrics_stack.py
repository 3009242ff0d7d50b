"""What scales on a real cluster: Prometheus, the metrics adapter, metrics-server and KEDA, from their own manifests."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from cluster.testbed import cli, images, programs
from cluster.testbed.base import Cluster
from cluster.testbed.client import Http, Kubectl, wait_for
from cluster.testbed.paths import HERE
from ragkube_operator.render.rules import Goals, Scope, groups

SPACE = "scaling-metrics"
PROMETHEUS = f"http://prometheus.{SPACE}:9090"
SECONDS = 5
"""Between scrapes and between evaluations; 15 in production."""
ADAPTER_PAGE = Path("docs/autoscaling.md")


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def account(name: str, *roles: str) -> list[dict[str, Any]]:
    """A ServiceAccount with cluster roles; the test's own servers, not the product's."""
    subject = {"kind": "ServiceAccount", "name": name, "namespace": SPACE}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SPACE}}
    ]
    for role in roles:
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        found.append(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{name}-{role.replace(':', '-')}"},
                "roleRef": reference,
                "subjects": [subject],
            }
        )
    return found


def server(
    name: str, image: str, args: list[str], port: int, ready: dict[str, Any], target: int
) -> list[Any]:
    """A Deployment with a configuration folder, and its Service."""
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "readinessProbe": {**ready, "periodSeconds": 1},
        "volumeMounts": [{"name": "c", "mountPath": "/c"}, {"name": "t", "mountPath": "/tmp"}],
    }
    volumes = [{"name": "c", "configMap": {"name": name}}, {"name": "t", "emptyDir": {}}]
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "serviceAccountName": name,
            "containers": [container],
            "volumes": volumes,
            "terminationGracePeriodSeconds": 1,
        },
    }
    spec = {
        "selector": {"matchLabels": {"app": name}},
        "strategy": {"type": "Recreate"},
        "template": template,
    }
    meta = {"name": name, "namespace": SPACE}
    ports = [{"port": port, "targetPort": target}]
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": name}, "ports": ports},
        },
    ]


def config(name: str, **files: str) -> dict[str, Any]:
    data = {key.replace("_", "."): text for key, text in files.items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SPACE},
        "data": data,
    }


def prometheus_config() -> str:
    """Every API pod, with the labels that the rules expect."""
    label = "__meta_kubernetes_pod_label_app_kubernetes_io_"
    relabel = [
        {"source_labels": [f"{label}name", f"{label}component"], "regex": "ragkube;api", "action": "keep"},
        {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Succeeded|Failed", "action": "drop"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {"source_labels": [f"{label}instance"], "target_label": "ragkube_deployment"},
        {"source_labels": [f"{label}component"], "target_label": "ragkube_component"},
    ]
    jobs = [{"job_name": "api", "kubernetes_sd_configs": [{"role": "pod"}], "relabel_configs": relabel}]
    document = {
        "global": {"scrape_interval": f"{SECONDS}s", "evaluation_interval": f"{SECONDS}s"},
        "rule_files": ["/c/rules.yml"],
        "scrape_configs": jobs,
    }
    return str(yaml.safe_dump(document))


def rules(*scopes: Scope) -> str:
    """The product's own recording rules, evaluated more often."""
    found = [group.manifest() for scope in scopes for group in groups(scope, Goals())]
    scaling = [{**group, "interval": f"{SECONDS}s"} for group in found if group["name"].endswith(".scaling")]
    return json.dumps({"groups": scaling})


def adapter_rules(repository: Path) -> str:
    """The configuration of prometheus-adapter that the documentation gives."""
    text = (repository / ADAPTER_PAGE).read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    found = yaml.safe_load(next(block for block in blocks if "seriesQuery" in block))
    return str(found["data"]["config.yaml"])


def _metrics_server() -> str:
    """The test bench's manifest with the image that a running cluster can be given."""
    text = (HERE / "nodes" / "metrics-server.yaml").read_text()
    return re.sub(r"(image: )\S*", rf"\g<1>{images.reference('metrics-server')}", text)


class Stack:
    """Servers that come and go, one at a time."""

    def __init__(self, cluster: Cluster, kubectl: Kubectl, http: Http, repository: Path) -> None:
        self._cluster = cluster
        self._kubectl = kubectl
        self._http = http
        self._repository = repository

    def start_metrics_server(self) -> None:
        cli.bring_images(self._cluster, ["metrics-server"])
        self._kubectl("apply", "-f", "-", input=_metrics_server())
        self._ready("metrics-server", "kube-system")

    def start_prometheus(self, *scopes: Scope) -> None:
        cli.bring_images(self._cluster, ["prometheus"])
        args = ["--config.file=/c/prometheus.yml", "--storage.tsdb.path=/tmp/data"]
        probe = {"httpGet": {"path": "/-/ready", "port": 9090}}
        self._kubectl.apply(
            namespace(SPACE),
            *account("prometheus", "view"),
            config("prometheus", prometheus_yml=prometheus_config(), rules_yml=rules(*scopes)),
            *server("prometheus", images.reference("prometheus"), args, 9090, probe, 9090),
        )
        self._ready("prometheus")

    def start_adapter(self, *apis: str) -> None:
        """prometheus-adapter behind the given API groups (``custom.metrics.k8s.io`` …)."""
        cli.bring_images(self._cluster, ["prometheus-adapter"])
        args = ["--secure-port=6443", "--cert-dir=/tmp/c", f"--prometheus-url={PROMETHEUS}"]
        args += ["--config=/c/adapter.yaml", f"--metrics-relist-interval={2 * SECONDS}s"]
        probe = {"tcpSocket": {"port": 6443}}
        self._kubectl.apply(
            *account("adapter", "system:auth-delegator", "view", "ragkube-metrics-reader"),
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "ragkube-metrics-reader"},
                "rules": [
                    {
                        "apiGroups": ["custom.metrics.k8s.io", "external.metrics.k8s.io"],
                        "resources": ["*"],
                        "verbs": ["*"],
                    },
                    {"apiGroups": ["ragkube.dev"], "resources": ["*"], "verbs": ["get", "list"]},
                ],
            },
            self._horizontal_reader(),
            self._auth_reader(),
            config("adapter", adapter_yaml=adapter_rules(self._repository)),
            *server("adapter", images.reference("prometheus-adapter"), args, 443, probe, 6443),
            *(self._api_service(api) for api in apis),
        )
        self._ready("adapter")

    def _api_service(self, group: str) -> dict[str, Any]:
        spec = {
            "group": group,
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": "adapter", "namespace": SPACE},
        }
        name = f"v1beta1.{group}"
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": name},
            "spec": spec,
        }

    def _horizontal_reader(self) -> dict[str, Any]:
        role = {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "ragkube-metrics-reader",
        }
        account = {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "ragkube-metrics-hpa"},
            "roleRef": role,
            "subjects": [account],
        }

    def _auth_reader(self) -> dict[str, Any]:
        name = "extension-apiserver-authentication-reader"
        return {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "ragkube-metrics-adapter", "namespace": "kube-system"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "adapter", "namespace": SPACE}],
        }

    def _ready(self, name: str, space: str = SPACE) -> None:
        self._kubectl("rollout", "status", f"deployment/{name}", "-n", space, "--timeout=90s")

    def scale(self, name: str, count: int) -> None:
        self._kubectl("scale", f"deployment/{name}", "-n", SPACE, f"--replicas={count}")

    def value(self, query: str) -> float | None:
        """The value of a query that has one series, or None."""
        answer = self._http("GET", f"{PROMETHEUS}/api/v1/query?query={quote(query)}").json()
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def start_keda(self, folder: Path) -> None:
        """KEDA's own kustomization at the version of the images, without its admission webhook."""
        cli.bring_images(self._cluster, ["keda", "keda-adapter"])
        source = programs.module_source("github.com/kedacore/keda/v2", programs.KEDA_VERSION) / "config"
        parts = ("crd", "general", "rbac", "manager", "metrics-server", "service_account")
        for part in parts:
            shutil.copytree(source / part, folder / part, copy_function=shutil.copyfile)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        local = [
            {
                "op": "replace",
                "path": "/spec/template/spec/containers/0/imagePullPolicy",
                "value": "IfNotPresent",
            }
        ]
        tags = [
            {
                "name": images.reference(name).rsplit(":", 1)[0],
                "newTag": images.reference(name).rsplit(":", 1)[1],
            }
            for name in ("keda", "keda-adapter")
        ]
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": list(parts),
            "images": tags,
            "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(local)}],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
        started = time.monotonic()
        self._kubectl("apply", "--server-side", "--force-conflicts", "-k", str(folder))
        for name in ("keda-operator", "keda-metrics-apiserver"):
            self._ready(name, "keda")
        print(f"\nKEDA runs after {time.monotonic() - started:.0f} s")

    def stop(self) -> None:
        """Everything that is not in a test's own namespace goes."""
        gone = ("--ignore-not-found", "--wait=false")
        if self.has_keda():
            # each has a finalizer of KEDA, which must be there to take it off
            self._kubectl("delete", "scaledobjects", "-A", "--all", "--timeout=60s")
        for api in ("custom", "external"):
            self._kubectl("delete", "apiservice", f"v1beta1.{api}.metrics.k8s.io", *gone)
        for space in (SPACE, "keda"):
            self._kubectl("delete", "namespace", space, *gone)
        self._kubectl("delete", "-f", "-", *gone, input=_metrics_server())
        crds = [
            name for name in self._kubectl("get", "crd", "-o", "name").split() if name.endswith("keda.sh")
        ]
        if crds:
            self._kubectl("delete", *crds, *gone)
        wait_for(lambda: not self.has_keda(), 60, what="KEDA's kinds to go")

    def has_keda(self) -> bool:
        """Whether KEDA's kinds are in the cluster."""
        return "keda.sh" in self._kubectl("get", "crd", "-o", "name")
