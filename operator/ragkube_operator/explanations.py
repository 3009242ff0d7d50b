"""What every reason of a condition means and what to do about it: `kubectl ragkube status` and the docs say it."""

from __future__ import annotations

from typing import NamedTuple

from ragkube_operator.status import Reason


class Explanation(NamedTuple):
    """In Markdown; ``step`` is empty when nothing need be done."""

    conditions: str
    meaning: str
    step: str


EXPLANATIONS: dict[Reason, Explanation] = {
    Reason.ALL_PARTS_READY: Explanation("Ready", "the platform answers questions", ""),
    Reason.UP_TO_DATE: Explanation("Reconciling", "nothing is under way", ""),
    Reason.PROGRESSING: Explanation(
        "Reconciling, Ready",
        "parts that are not ready yet are named",
        "wait; the part's own condition says more",
    ),
    Reason.RETRYING: Explanation(
        "Reconciling",
        "the API server failed or refused in passing; the operator tries again, more slowly each time",
        "look at the message when it stays",
    ),
    Reason.PAUSED: Explanation(
        "Reconciling", "`spec.paused` is true: nothing is changed, not even repaired", "set it to false"
    ),
    Reason.NO_PROBLEM: Explanation("Stalled", "nothing stands in the way", ""),
    Reason.INVALID_SPEC: Explanation(
        "Stalled, Ready",
        "the spec breaks a rule of this version (it was written before an upgrade)",
        "change the field that the message names",
    ),
    Reason.IMMUTABLE_FIELD: Explanation(
        "Stalled, Ready",
        "a change needs an object that Kubernetes does not change in place",
        "undo it, or run the command in the message",
    ),
    Reason.NAME_CONFLICT: Explanation(
        "Stalled, Ready",
        "an object of that name belongs to somebody else; it is never taken over",
        "delete or rename one of them",
    ),
    Reason.REFUSED: Explanation(
        "Stalled, Ready",
        "the API server refuses an object: quota, policy, webhook or missing rights",
        "the message has the API server's words",
    ),
    Reason.SECRETS_FOUND: Explanation("SecretsReady", "all there", ""),
    Reason.SECRET_MISSING: Explanation(
        "SecretsReady, MonitoringReady",
        "the message names Secret, key and the field that names them",
        "create it, as the message shows",
    ),
    Reason.DISABLED: Explanation("CacheReady", "`spec.cache.enabled` is false", ""),
    Reason.FORMING_CLUSTER: Explanation("CacheReady", "Redis pods start and are joined to a cluster", "wait"),
    Reason.CLUSTER_FORMED: Explanation("CacheReady", "every slot is served", ""),
    Reason.HEALING_CLUSTER: Explanation(
        "CacheReady",
        "pods were lost or replaced; the cluster is made whole again. What only lost pods held is fetched anew",
        "wait; look at the pods when it stays",
    ),
    Reason.AUTHENTICATION_FAILED: Explanation(
        "CacheReady, VectorStoreReady", "the password or key is refused", "correct the Secret"
    ),
    Reason.REACHABLE: Explanation(
        "CacheReady, VectorStoreReady, MonitoringReady", "the external service answers", ""
    ),
    Reason.UNREACHABLE: Explanation(
        "CacheReady, VectorStoreReady, MonitoringReady",
        "the external service does not answer; the message has address and error",
        "address, network, the service itself",
    ),
    Reason.PODS_READY: Explanation("VectorStoreReady", "all pods are ready", ""),
    Reason.WAITING_FOR_PODS: Explanation(
        "VectorStoreReady, MonitoringReady",
        "pods are starting; the message has the kubelet's or the scheduler's words",
        "images, volumes, resources of the nodes",
    ),
    Reason.AVAILABLE: Explanation(
        "APIReady, SourcesReady, MonitoringReady",
        "all pods are ready. With `auth.mode: None` the message says that everyone may do everything",
        "",
    ),
    Reason.ROLLING_OUT: Explanation(
        "APIReady, SourcesReady, MonitoringReady",
        "pods are starting or being replaced",
        "wait; the message names a pod in trouble",
    ),
    Reason.ROLLOUT_FAILED: Explanation(
        "APIReady, SourcesReady, MonitoringReady",
        "the rollout makes no progress; the old pods serve on",
        "the message says what the first bad pod lacks",
    ),
    Reason.HELD_BACK: Explanation(
        "APIReady, SourcesReady", "not started, because a Secret is missing", "see `SecretsReady`"
    ),
    Reason.NOT_CREATED: Explanation(
        "every part with pods", "its objects do not exist (yet)", "see `Stalled` when it stays"
    ),
    Reason.VOLUME_MISSING: Explanation(
        "SourcesReady", "the claim or ConfigMap of a source does not exist", "create it"
    ),
    Reason.SCALING: Explanation(
        "ScalingReady",
        "the engine that the spec asks for, or the best that the cluster offers, decides how many API pods run",
        "",
    ),
    Reason.SCALING_ON_CPU: Explanation(
        "ScalingReady",
        "with `engine: Auto` there was nothing better than CPU, which sees neither waiting for the model nor cache misses",
        "the message says what each better engine lacks; or set `engine: CPU` when that is what you want",
    ),
    Reason.AT_MAXIMUM: Explanation(
        "ScalingReady", "more pods are wanted than `maxReplicas`", "raise it, or lower the load"
    ),
    Reason.WAITING_FOR_METRICS: Explanation(
        "ScalingReady", "the autoscaler is new and has not looked yet", "wait a minute"
    ),
    Reason.METRICS_UNAVAILABLE: Explanation(
        "ScalingReady",
        "the autoscaler cannot read a metric: the message has its own words",
        "Prometheus, its address, the rules of the metrics adapter",
    ),
    Reason.SCALED_TO_ZERO: Explanation(
        "ScalingReady",
        "somebody scaled the Deployment to 0, which switches every autoscaler off",
        "scale it to 1",
    ),
    Reason.ENGINE_MISSING: Explanation(
        "ScalingReady",
        "the cluster has no engine of the kind that the spec asks for",
        "the message names what to install or to set; it is picked up without a restart",
    ),
    Reason.APPLIED: Explanation(
        "MonitoringReady",
        "monitors, rules and dashboards are there for an existing Prometheus Operator; whether it selects them is not checked",
        "set `monitoring.external.prometheusUrl` to have it checked",
    ),
    Reason.KIND_MISSING: Explanation(
        "MonitoringReady",
        "the cluster has no Prometheus Operator (the message names the kinds)",
        "install it: the objects follow within two minutes, without a restart; or use `Managed`",
    ),
    Reason.NOT_SCRAPED: Explanation(
        "MonitoringReady",
        "the existing Prometheus answers but has no series of this deployment",
        "set `monitoring.external.labels` to what its selectors ask for, and let it select the namespace",
    ),
}
