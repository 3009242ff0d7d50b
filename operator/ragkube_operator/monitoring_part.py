"""The condition ``MonitoringReady``: the stack that we run, or whether an existing one has what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragkube_operator import probes
from ragkube_operator.crd import RagDeployment
from ragkube_operator.engine import DEPLOYMENT, STATEFUL_SET, Outcome
from ragkube_operator.kube import Manifest
from ragkube_operator.render import names
from ragkube_operator.render.redis_targets import exporter_runs
from ragkube_operator.render.rules import Scope
from ragkube_operator.secret_store import SecretStore
from ragkube_operator.status import Part, Reason, deployment_part, stateful_set_part

_COMPONENT = "app.kubernetes.io/component"


def prometheus_url(deployment: RagDeployment) -> str | None:
    """Where the Prometheus with our series answers, as far as the spec says."""
    monitoring = deployment.spec.monitoring
    if monitoring.type == "Managed":
        return names.prometheus_url(deployment.name, deployment.namespace)
    return monitoring.outside.prometheus_url if monitoring.type == "External" else None


async def part(
    deployment: RagDeployment, outcome: Outcome, pods: Sequence[Manifest], secrets: SecretStore
) -> Part:
    """The state of monitoring; its type is not None."""
    trouble = _workloads(deployment, outcome, pods)
    if deployment.spec.monitoring.type == "Managed":
        missing = await _missing_config(deployment, secrets)
        return missing or trouble or Part(True, Reason.AVAILABLE, _running(deployment))
    absent = sorted({ref.kind.kind for ref in outcome.skipped if ref.kind.group == "monitoring.coreos.com"})
    if absent:
        return Part(
            False,
            Reason.KIND_MISSING,
            f"The cluster has no {', '.join(absent)} (monitoring.coreos.com/v1): install the Prometheus Operator, "
            "which is noticed within two minutes; or set monitoring.type to Managed",
        )
    return trouble or await _scraped(deployment)


async def _missing_config(deployment: RagDeployment, secrets: SecretStore) -> Part | None:
    alertmanager = deployment.spec.monitoring.stack.alertmanager
    reference = alertmanager.config_secret_ref
    if not alertmanager.enabled or reference is None or await secrets.value(reference.name, reference.key):
        return None
    return Part(
        False,
        Reason.SECRET_MISSING,
        f"Secret {reference.name} with key {reference.key} does not exist "
        "(spec.monitoring.managed.alertmanager.configSecretRef): Alertmanager starts when it does. Create it: "
        f"kubectl create secret generic {reference.name} -n {deployment.namespace} "
        f"--from-file={reference.key}=alertmanager.yml",
    )


def _workloads(deployment: RagDeployment, outcome: Outcome, pods: Sequence[Manifest]) -> Part | None:
    """The first that is not ready."""
    for title, found in _parts(deployment, outcome, pods).items():
        if not found.ready:
            return Part(False, found.reason, f"{title}: {found.message}")
    return None


def _parts(deployment: RagDeployment, outcome: Outcome, pods: Sequence[Manifest]) -> Mapping[str, Part]:
    name, stack = deployment.name, deployment.spec.monitoring.stack
    managed = deployment.spec.monitoring.type == "Managed"
    single = {
        "Alertmanager": ("alertmanager", names.alertmanager(name), managed and stack.alertmanager.enabled),
        "Grafana": ("grafana", names.grafana(name), managed and stack.grafana.enabled),
        "Redis exporter": ("redis-exporter", names.redis_exporter(name), exporter_runs(deployment)),
    }
    found: dict[str, Part] = {}
    if managed:
        live = outcome.find(STATEFUL_SET, names.prometheus(name))
        found["Prometheus"] = stateful_set_part(live, _of(pods, "prometheus"))
    for title, (component, workload, wanted) in single.items():
        if wanted:
            found[title] = deployment_part(outcome.find(DEPLOYMENT, workload), _of(pods, component))
    return found


def _of(pods: Sequence[Manifest], component: str) -> list[Manifest]:
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(_COMPONENT) == component]


def _running(deployment: RagDeployment) -> str:
    name, space = deployment.name, deployment.namespace
    text = f"Prometheus answers at {names.prometheus_url(name, space)}"
    if not deployment.spec.monitoring.stack.grafana.enabled:
        return text
    address = f"http://{names.grafana(name)}.{space}.svc:{names.GRAFANA_PORT}"
    return f"{text}, Grafana at {address} (user admin, password in Secret {names.grafana_admin(name)})"


async def _scraped(deployment: RagDeployment) -> Part:
    url = deployment.spec.monitoring.outside.prometheus_url
    if url is None:
        text = (
            "Monitors, rules and dashboards are there (set external.prometheusUrl to have the rest checked)"
        )
        return Part(True, Reason.APPLIED, text)
    query = f"count({Scope(deployment.namespace, deployment.name).metric('up')})"
    return await probes.prometheus(url, query)
