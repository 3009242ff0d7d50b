"""``python -m ragkube_operator check``: is an operator at work, and may it do what it has to? ``helm test`` runs it."""

from __future__ import annotations

import asyncio
import sys

from ragkube_operator import kube
from ragkube_operator.errors import KubeError
from ragkube_operator.leader import LEASE
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import LeaseRef, Options
from ragkube_operator.reconciler import RAG_DEPLOYMENT

PATIENCE_SECONDS = 30.0
"""Long enough for a new operator to take the Lease of one that crashed."""
_POLL_SECONDS = 1.0


def run(options: Options) -> int:
    """Exit code 0 when all is well; otherwise a sentence for each problem on standard error and 1.

    Raises:
        ConfigurationError: the cluster's address cannot be read.
    """
    problems = asyncio.run(_problems(options))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if not problems:
        sys.stdout.write("an operator is at work\n")
    return 1 if problems else 0


async def _problems(options: Options) -> list[str]:
    configuration = await kube.configuration(options.kubeconfig, options.kube_context)
    async with kube.connect(configuration, Metrics()) as client:
        try:
            return await _look(client, options)
        except KubeError as error:
            return [f"the API server refuses: {error}"]


async def _look(client: kube.Kube, options: Options) -> list[str]:
    if not await client.serves(RAG_DEPLOYMENT):
        return ["the CustomResourceDefinition ragdeployments.ragkube.dev is not installed"]
    for namespace in options.namespaces or (None,):
        await client.list(RAG_DEPLOYMENT, namespace)
    if options.lease is None or await _renewed(client, options.lease):
        return []
    lease = f"{options.lease.namespace}/{options.lease.name}"
    return [f"nobody renews the Lease {lease}: no operator is at work; look at its pods"]


async def _renewed(client: kube.Kube, lease: LeaseRef) -> bool:
    """Whether the Lease is held and changes while we look: clocks are not compared."""
    first: str | None = None
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        live = await client.get(LEASE, lease.namespace, lease.name)
        if live is not None and live["spec"].get("holderIdentity"):
            version = live["metadata"]["resourceVersion"]
            if first not in {None, version}:
                return True
            first = version
        await asyncio.sleep(_POLL_SECONDS)
    return False
