"""What the pods of the minimal sample ask for, with the operator: from the manifests that are applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

from ragkube_operator import crd, render
from ragkube_operator.crd.base import amount

ROOT: Final = Path(__file__).resolve().parent.parent
GIB: Final = 1024**3
PARTS: Final = {
    "ragkube-operator": "operator",
    "minimal-api": "API",
    "minimal-redis": "Redis Cluster",
    "minimal-weaviate": "Weaviate",
}
"""What people call the workload of that name."""


@dataclass(frozen=True)
class Share:
    """The pods of one workload; quantities are of one pod, as Kubernetes writes them."""

    part: str
    pods: int
    cpu: str
    memory: str
    memory_limit: str
    volume: str = ""


def shares() -> list[Share]:
    """The operator's and those of the minimal sample."""
    sample = yaml.safe_load((ROOT / "manifests" / "samples" / "minimal.yaml").read_text())
    context = render.Context(api_image="", operator_version="0.0.0")
    operator = yaml.safe_load_all((ROOT / "manifests" / "operator" / "deployment.yaml").read_text())
    return [*_shares(operator), *_shares(render.render(crd.parse(sample), context))]


def _shares(manifests: Any) -> Iterator[Share]:
    for manifest in manifests:
        if manifest["kind"] not in {"Deployment", "StatefulSet"}:
            continue
        spec = manifest["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        claims = [
            claim["spec"]["resources"]["requests"]["storage"]
            for claim in spec.get("volumeClaimTemplates", ())
        ]
        part = PARTS[manifest["metadata"]["name"]]
        yield Share(part, spec["replicas"], requests["cpu"], requests["memory"], limits["memory"], *claims)


def total(found: Sequence[Share]) -> tuple[Decimal, Decimal]:
    """Cores, and GiB of memory, that all of them ask for."""
    cores = sum((each.pods * amount(each.cpu) for each in found), Decimal())
    memory = sum((each.pods * amount(each.memory) for each in found), Decimal())
    return cores, memory / GIB


def rows() -> Iterator[tuple[str, str, str, str]]:
    """For a table: part, pods, CPU and memory of one pod."""
    found = shares()
    for each in found:
        volume = f", a {each.volume} volume" if each.volume else ""
        yield each.part, str(each.pods), each.cpu, f"{each.memory} ({each.memory_limit}){volume}"
    cores, memory = total(found)
    pods = sum(each.pods for each in found)
    yield "all of them", str(pods), f"{cores.normalize()}", f"{memory.normalize()}Gi"
