"""The work of the active instance: kopf watches, workers reconcile; it goes on from whatever the cluster holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import kopf
import structlog
from kubernetes.aio.client.configuration import Configuration

from ragkube_operator import handlers, kube
from ragkube_operator.errors import KubeError
from ragkube_operator.health import State
from ragkube_operator.metrics import Metrics
from ragkube_operator.options import Options, operator_version
from ragkube_operator.reconciler import RAG_DEPLOYMENT, Key, Reconciler
from ragkube_operator.render import Context
from ragkube_operator.workers import Workers

log = structlog.get_logger(__name__)

_CRD_POLL_SECONDS = 2.0
_AGAIN_SECONDS = 3.0
SWEEP_SECONDS = 300.0
_IDENTITY: Any = "ragkube-operator"


def context(options: Options) -> Context:
    """What rendering is told of this operator; its Service has the name and the namespace of its Lease."""
    known = Context(api_image=options.api_image, operator_version=operator_version())
    lease = options.lease
    return replace(known, operator_metrics=f"{lease.name}.{lease.namespace}.svc") if lease else known


class Term:
    """Runs any number of times in one process, once for each time that it leads."""

    def __init__(
        self,
        options: Options,
        configuration: Configuration,
        client: kube.Kube,
        metrics: Metrics,
        state: State,
    ) -> None:
        self._options = options
        self._configuration = configuration
        self._client = client
        self._metrics = metrics
        self._state = state

    async def run(self, over: asyncio.Event, restore_signals: Callable[[], None]) -> None:
        """Work until ``over`` is set; when this returns nothing of it runs any more."""
        self._state.leading, self._state.trouble = True, "starting"
        try:
            if not await self._wait_for_crd(over):
                return
            while not over.is_set():
                await self._watch_once(over, restore_signals)
        finally:
            self._state.leading = False
            self._metrics.forget_resources()

    async def _watch_once(self, over: asyncio.Event, restore_signals: Callable[[], None]) -> None:
        """kopf gives up when the API server fails for long: then everything starts from a new list."""
        task = asyncio.create_task(self._watch(over, restore_signals))
        await asyncio.wait({task})
        error = None if task.cancelled() else task.exception()
        if over.is_set():
            return
        self._metrics.watch_failures.inc()
        self._state.trouble = "watching is started again"
        log.warning("watch_failed", error=repr(error))
        await asyncio.sleep(_AGAIN_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311

    async def _watch(self, over: asyncio.Event, restore_signals: Callable[[], None]) -> None:
        reconciler = Reconciler(self._client, self._metrics, context(self._options))
        workers = Workers[Key](reconciler.reconcile, self._metrics)
        others = asyncio.all_tasks()
        login = partial(kube.credentials, self._configuration)
        sweeper = asyncio.create_task(self._sweep(workers))
        try:
            tasks = await kopf.spawn_tasks(
                registry=handlers.registry(workers, login),
                settings=handlers.settings(),
                # otherwise kopf asks for the user's name, which an arbitrary UID does not have
                identity=_IDENTITY,
                standalone=True,
                clusterwide=not self._options.namespaces,
                namespaces=self._options.namespaces,
                stop_flag=over,
            )
            # kopf takes SIGTERM for itself
            restore_signals()
            self._state.trouble = ""
            await kopf.run_tasks(tasks, ignored=others | {sweeper})
        finally:
            sweeper.cancel()
            await workers.stop()

    async def _sweep(self, workers: Workers[Key]) -> None:
        """Look at resources that no event told of: the net below the watches."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311
            try:
                for namespace in self._options.namespaces or (None,):
                    for live in await self._client.list(RAG_DEPLOYMENT, namespace):
                        workers.look(handlers.resource_key(live), only_new=True)
            except Exception as error:  # nobody awaits it: without this the net would be gone
                log.warning("sweep_failed", error=repr(error), exc_info=not isinstance(error, KubeError))

    async def _wait_for_crd(self, over: asyncio.Event) -> bool:
        """An operator that starts before its CRD waits for it instead of crashing."""
        told = False
        while not over.is_set():
            try:
                if await self._client.serves(RAG_DEPLOYMENT, fresh=True):
                    return True
                reason = "the CustomResourceDefinition is not installed"
            except KubeError as error:
                reason = str(error)
            self._state.trouble = reason
            if not told:
                log.warning("waiting_for_cluster", reason=reason)
                told = True
            await asyncio.sleep(_CRD_POLL_SECONDS)
        return False
