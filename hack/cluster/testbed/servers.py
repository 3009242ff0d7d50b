"""Images of servers that are one static Go program: their public names, made from the published modules."""

from dataclasses import dataclass

from cluster.testbed.archive import Config


@dataclass(frozen=True)
class GoServer:
    """An image of one program, with the entry point and the user of the public image."""

    reference: str
    program: str
    path: str
    command: tuple[str, ...] = ()
    user: str = ""

    @property
    def config(self) -> Config:
        return Config(entrypoint=(self.path,), command=self.command, user=self.user)


GO_SERVERS = {
    "weaviate": GoServer(
        "semitechnologies/weaviate:1.39.0",
        "weaviate",
        "/bin/weaviate",
        ("--host", "0.0.0.0", "--port", "8080", "--scheme", "http"),
    ),
    "prometheus": GoServer(
        "prom/prometheus:v3.14.0",
        "prometheus",
        "/bin/prometheus",
        ("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"),
        user="65534",
    ),
    "alertmanager": GoServer(
        "prom/alertmanager:v0.31.1",
        "alertmanager",
        "/bin/alertmanager",
        ("--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"),
        user="65534",
    ),
    "redis-exporter": GoServer(
        "oliver006/redis_exporter:v1.88.0", "redis_exporter", "/redis_exporter", user="59000:59000"
    ),
    "prometheus-adapter": GoServer(
        "registry.k8s.io/prometheus-adapter/prometheus-adapter:v0.12.0",
        "prometheus-adapter",
        "/adapter",
        user="65534",
    ),
    "metrics-server": GoServer(
        "registry.k8s.io/metrics-server/metrics-server:v0.9.0",
        "metrics-server",
        "/metrics-server",
        user="65534",
    ),
    "kube-state-metrics": GoServer(
        "registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.20.0",
        "kube-state-metrics",
        "/kube-state-metrics",
        user="65534",
    ),
    "keda": GoServer("ghcr.io/kedacore/keda:2.20.2", "keda-operator", "/keda", user="1000"),
    "keda-adapter": GoServer(
        "ghcr.io/kedacore/keda-metrics-apiserver:2.20.2", "keda-adapter", "/keda-adapter", user="1000"
    ),
}
