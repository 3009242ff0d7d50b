"""Documents of sources that a run does not use any more: they must not answer questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragkube_operator.cli_manifest import Manifest
    from ragkube_operator.client import Client


def forget_others(client: Client, settings: dict[str, Any], manifest: Manifest) -> int:
    """Remove what other sources left in our own index; what was uploaded stays. Returns how many."""
    if settings["store"]["kind"] != "embedded":
        return 0  # an external store may hold documents that others keep
    sources = settings["documents"].get("sources", ())
    used = {source["name"] for source in sources}
    tenants = {"default", *(source.tenant for source in manifest.deployment.spec.documents.sources)}
    return sum(_forget(client, tenant, used) for tenant in sorted(tenants))


def _forget(client: Client, tenant: str, used: set[str]) -> int:
    with client.for_tenant(tenant) as own:
        left = [entry["id"] for entry in own.documents() if entry["source"] and entry["source"] not in used]
        for document_id in left:
            own.delete_document(document_id)
    return len(left)
