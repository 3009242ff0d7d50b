"""What every reason of a condition means and what to do about it: `kubectl ragkube status` and the docs say it."""

from __future__ import annotations

from typing import Final, NamedTuple

from ragkube_operator.status import Reason

CONDITIONS: Final[dict[str, tuple[str, str]]] = {
    "Ready": (
        "every part below is ready",
        "`message` names the first part that is not, and why",
    ),
    "Reconciling": (
        "something is under way and needs no help",
        "everything is as the spec says, or nothing can go on",
    ),
    "Stalled": (
        "nothing goes on until somebody changes something; `message` says what",
        "nothing stands in the way",
    ),
    "SecretsReady": (
        "every Secret that the spec names has the key that it names",
        "one is missing: the API is not started, or stays as it was, until it is there",
    ),
    "CacheReady": (
        "the Redis Cluster serves every slot and every primary has its replicas; or the external one answers; or no cache is wanted",
        "the API answers without a cache until then",
    ),
    "VectorStoreReady": (
        "every Weaviate pod is ready, or the external Weaviate answers over REST and gRPC",
        "documents and questions are refused with 503 until then",
    ),
    "APIReady": (
        "all API pods run the current spec and are ready",
        "some do not yet",
    ),
    "SourcesReady": (
        "the worker that follows `spec.documents.sources` runs; absent without sources",
        "documents that come by themselves are late",
    ),
    "ScalingReady": (
        "the autoscaler works; the message names its engine and limits; absent while `spec.autoscaling` is off",
        "the number of pods stays as it is, and the message says which metric or API is missing. Questions are answered meanwhile: `Ready` does not wait for it",
    ),
    "MonitoringReady": (
        "Prometheus, Alertmanager, Grafana and the Redis exporter run; or an existing Prometheus has what it needs; absent with `monitoring.type: None`",
        "metrics, alerts or dashboards are missing. Questions are answered all the same: `Ready` does not wait for it",
    ),
}
"""What True and False of each condition mean."""
EVENTS: Final[dict[str, tuple[str, str]]] = {
    "Ready": ("Normal", "everything became ready"),
    "RedisClusterFormed": ("Normal", "the Redis Cluster became whole for the first time"),
    "RedisClusterHealed": ("Normal", "the Redis Cluster became whole again"),
    "RedisClusterHealing": ("Warning", "pods of a whole Redis Cluster were lost"),
    "PodReplaced": ("Normal", "Redis nodes that cannot come back were struck from the cluster"),
    "SecretFound": ("Normal", "a missing Secret appeared"),
}
"""Events that are not named after a condition's reason: type, and when they are written."""


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
