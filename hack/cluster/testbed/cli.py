"""The command line."""

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.testbed import images, programs, rootfs
from cluster.testbed.base import Cluster
from cluster.testbed.given import GivenCluster
from cluster.testbed.kind import KindCluster, docker_answers
from cluster.testbed.own import OwnCluster
from cluster.testbed.paths import State, TestbedError
from cluster.testbed.shell import run, say

EXTRAS = ("metrics-server", "network-policies")
ACTIONS = ("kill", "start", "freeze", "thaw", "cut", "join")


def choose(name: str | None = None, *, kind: str | None = None, size: int = 3) -> Cluster:
    """A kubeconfig given on purpose, else kind where Docker answers, else our own; or the kind that is asked for."""
    state = State.named(name or os.environ.get("RAGKUBE_CLUSTER") or None)
    given = os.environ.get("RAGKUBE_KUBECONFIG")
    kind = kind or ("given" if given else "own" if (state.root / "init.pid").exists() else None)
    if kind == "given":
        if not given:
            raise TestbedError("RAGKUBE_KUBECONFIG is not set")
        return GivenCluster(state, Path(given).expanduser().resolve())
    if kind == "kind" or (kind is None and docker_answers()):
        return KindCluster(state, size)
    return OwnCluster(state, size)


def bring_images(cluster: Cluster, names: Sequence[str] = ()) -> dict[str, str]:
    """Build images and load them into every node; name -> reference."""
    wanted = list(names or images.NAMES)
    found = {name: images.reference(name) for name in wanted}
    cluster.bring(wanted)
    return found


def restart(cluster: Cluster, names: Sequence[str]) -> list[str]:
    """Delete the pods that run these images, so that their owners start the new ones."""
    references = {images.reference(name) for name in names}
    listed = json.loads(run([*cluster.kubectl_command(), "get", "pods", "-A", "-o", "json"]))
    deleted = []
    for pod in listed["items"]:
        if references & {container["image"] for container in pod["spec"]["containers"]}:
            meta = pod["metadata"]
            where = ["-n", meta["namespace"], "pod", meta["name"], "--wait=false"]
            run([*cluster.kubectl_command(), "delete", *where])
            deleted.append(f"{meta['namespace']}/{meta['name']}")
    return deleted


def tool(name: str) -> Path:
    """The path of a program that runs on this machine."""
    if any(name in server.programs for server in rootfs.SERVERS.values()):
        return rootfs.host_program(name)
    return programs.program(name)


def status(cluster: Cluster) -> dict[str, object]:
    up = cluster.running()
    return {
        "kind": cluster.kind,
        "running": up,
        "kubeconfig": str(cluster.kubeconfig()),
        "proxy": cluster.proxy() if up and cluster.kind == "own" else None,
        "nodes": cluster.nodes() if up else [],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cluster.py", description="A real Kubernetes cluster for tests.")
    parser.add_argument(
        "--name", help="of the cluster; by default $RAGKUBE_CLUSTER or derived from the path of this checkout"
    )
    parser.add_argument(
        "--kind", choices=("given", "kind", "own"), help="instead of what is found on this machine"
    )
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes run pods (3)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    up = command("up", "start the cluster anew")
    up.add_argument("--with", dest="extras", action="append", choices=EXTRAS, default=[])
    command("down", "end the cluster; nothing is left")
    enter = command("enter", "run a command inside the cluster's network, with KUBECONFIG set")
    enter.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD")
    load = command("load", "load image archives into every node")
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    forward = command("forward", "relay a port of the host to an address inside, until interrupted")
    forward.add_argument("port", type=int)
    forward.add_argument("target", metavar="ADDR:PORT")
    built = command("images", "build images and load them")
    built.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(images.KNOWN)} ({', '.join(images.NAMES)})"
    )
    built.add_argument("--restart", action="store_true", help="delete the pods that run them")
    command("kubeconfig", "print the path of the kubeconfig for clients on the host")
    command("status", "print what is running, as JSON")
    command("recycle", "wipe and re-create the volumes whose claims are gone")
    found = command(
        "tool", "print the path of a program, built when missing: redis-server, weaviate, helm, …"
    )
    found.add_argument("program")
    node = command("node", "fail a node, or mend it")
    node.add_argument("action", choices=ACTIONS)
    node.add_argument("node_name", metavar="NAME")
    return parser


def _images(cluster: Cluster, arguments: argparse.Namespace) -> int:
    found = bring_images(cluster, arguments.names)
    for pod in restart(cluster, list(found)) if arguments.restart else []:
        say(f"restarted {pod}")
    print("\n".join(found.values()))
    return 0


def _up(cluster: Cluster, arguments: argparse.Namespace) -> int:
    cluster.up(arguments.extras)
    print(f"export KUBECONFIG={cluster.kubeconfig()}")
    return 0


def _print(text: object) -> int:
    print(text)
    return 0


def _do(action: Callable[[], object]) -> int:
    action()
    return 0


def main(words: Sequence[str]) -> int:
    arguments = _parser().parse_args(words)
    try:
        if arguments.command == "tool":
            return _print(tool(arguments.program))
        cluster = choose(arguments.name, kind=arguments.kind, size=arguments.nodes)
        return _run(cluster, arguments)
    except TestbedError as error:
        say(f"cluster.py: {error}")
        return 1


def _run(cluster: Cluster, arguments: argparse.Namespace) -> int:
    commands: dict[str, Callable[[], int]] = {
        "up": lambda: _up(cluster, arguments),
        "down": lambda: _do(cluster.down),
        "enter": lambda: subprocess.run(cluster.enter_command(arguments.words), check=False).returncode,
        "load": lambda: _do(lambda: cluster.load(arguments.archives)),
        "forward": lambda: cluster.forward(arguments.port, arguments.target),
        "images": lambda: _images(cluster, arguments),
        "kubeconfig": lambda: _print(cluster.kubeconfig()),
        "status": lambda: _print(json.dumps(status(cluster), indent=2)),
        "recycle": lambda: _print(f"{cluster.recycle()} volumes"),
        "node": lambda: _do(lambda: cluster.node(arguments.action, arguments.node_name)),
    }
    return commands[arguments.command]()
