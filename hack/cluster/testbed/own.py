"""Our own cluster: Kubernetes from its published modules, nodes in namespaces of this machine. Needs root, no Docker.

Everything lives in network, mount and process namespaces of its own: two clusters have the same addresses without meeting,
the host's network stays as it is, and killing the first process ends everything, also after a crash.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cluster.testbed import images, programs, volumes
from cluster.testbed.archive import Config, Image, Store
from cluster.testbed.paths import HERE, NODE_SCRIPTS, State, TestbedError, UnavailableError, locked
from cluster.testbed.shell import Timer, need, run, say, wait_until

API_SERVER = "172.30.0.1:6443"
_NEEDS = (
    *("containerd", "runc", "iptables", "conntrack", "gcc", "openssl", "curl", "ip", "pgrep", "nsenter"),
    "/usr/lib/cni/bridge",
)
_CTR = ("ctr", "-n", "k8s.io")
_IMPORT = (*_CTR, "images", "import", "--no-unpack")  # unpacked when a pod first needs it
_INGEST = """
while read -r digest size path; do
  ctr -n k8s.io content ingest --expected-digest "sha256:$digest" --expected-size "$size" "link-$digest" <"$path"
done
"""
_BIG = 1 << 20
_ADDONS = ("metrics-server",)  # run as pods
_NODE_PROGRAMS = {"network-policies": "kube-network-policies"}  # run beside every kubelet
_CGROUPS = Path("/sys/fs/cgroup")
_RELAY = HERE / "testbed" / "relay.py"


class OwnCluster:
    """One control plane on a bridge, `size` nodes beside it."""

    kind = "own"

    def __init__(self, state: State, size: int = 3) -> None:
        self.state = state
        self._wanted = size

    # -- life ---------------------------------------------------------------------------------------------------------

    def up(self, extras: Sequence[str] = ()) -> None:
        if os.geteuid() != 0:
            raise UnavailableError("our own cluster needs root; or start a Docker engine and install kind")
        need(*_NEEDS)
        kube = programs.kube()
        addons = [name for name in extras if name in _ADDONS]
        found = {name: programs.program(name) for name in ("coredns", *addons)}
        on_nodes = [programs.program(_NODE_PROGRAMS[name]) for name in extras if name in _NODE_PROGRAMS]
        with locked(self.state.id), Timer("cluster up"):
            self._down()
            self._lay_out(kube, on_nodes)
            self._preflight()
            self._write_images(found)
            self._start_namespaces()
            self._start_control_plane()
            self._start_nodes()
            self._expose()
            self._install(addons)

    def down(self) -> None:
        with locked(self.state.id):
            self._down()

    @property
    def _size(self) -> int:
        started_with = self.state.root / "size"
        return int(started_with.read_text()) if started_with.exists() else self._wanted

    def running(self) -> bool:
        if self._init() is None or not self.state.kubeconfig.exists():
            return False
        self._mend_relays()
        return True

    def _down(self) -> None:
        for group in self._cgroups("freezer"):
            freezer = group / "freezer.state"  # a frozen process does not die
            if freezer.exists():
                freezer.write_text("THAWED")
        for group in self._cgroups(""):
            if (group / "cgroup.freeze").exists():
                (group / "cgroup.freeze").write_text("0")
        self._kill_marked()
        wait_until(self._remove_cgroups, "the last processes of pods to end", timeout=60)
        for path in self.state.root.glob("*"):
            if path == self.state.log:
                continue  # the logs of the last run help to find out why it failed
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _remove_cgroups(self) -> bool:
        """A cgroup can be removed when its processes are gone; those of pods carry no marker."""
        for group in self._all_cgroups():
            run(["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], check=False)
        return not self._all_cgroups()

    def _all_cgroups(self) -> list[Path]:
        return [*self._cgroups(""), *self._cgroups("*")]

    def _kill_marked(self) -> None:
        """Kill what carries the marker; processes of its pods die with their namespaces."""

        def none_left() -> bool:
            pids = list(marked_processes(self.state.marker))
            for pid in pids:
                _kill(pid)
            return not pids

        wait_until(none_left, "processes of the cluster to end", timeout=30, pause=0.05)

    def _cgroups(self, hierarchy: str) -> list[Path]:
        """The top-level cgroups of this cluster's nodes, in one hierarchy, all (`*`) or the unified tree (empty)."""
        parents = (
            [_CGROUPS] if not hierarchy else [path for path in _CGROUPS.glob(hierarchy) if path.is_dir()]
        )
        return [
            group for parent in parents for group in parent.glob(f"{self.state.id}-n[0-9]*") if group.is_dir()
        ]

    # -- start --------------------------------------------------------------------------------------------------------

    def _lay_out(self, kube: Path, on_nodes: Sequence[Path]) -> None:
        state = self.state
        for folder in (state.bin, state.images, state.log, state.root / "run"):
            folder.mkdir(parents=True, exist_ok=True)
        (state.root / "size").write_text(str(self._wanted))
        for log in state.log.glob("*.log"):
            log.unlink()
        for name in ("kube", *programs.KUBE_NAMES):
            (state.bin / name).symlink_to(kube / name)
        for program in on_nodes:
            (state.bin / program.name).symlink_to(program)
        for name in ("containerd.toml", "kubelet-config.tmpl"):
            shutil.copy(NODE_SCRIPTS / name, state.root)
        (state.root / "resolv.conf").write_text(
            "nameserver 10.96.0.10\nsearch svc.cluster.local cluster.local\n"
        )
        _raise_limit("fs/inotify/max_user_instances", 4096)
        _raise_limit("fs/inotify/max_user_watches", 524288)

    def _preflight(self) -> None:
        report = run(["bash", NODE_SCRIPTS / "preflight.sh", self.state.root], check=False)
        failed = [line for line in report.splitlines() if line.startswith("FAIL")]
        if failed:
            raise UnavailableError("this machine cannot run nodes:\n" + "\n".join(failed))

    def _write_images(self, found: dict[str, Path]) -> None:
        """What nodes import when they start."""
        pause = self.state.root / "pause"
        run(["gcc", "-static", "-Os", "-s", "-o", pause, NODE_SCRIPTS / "pause.c"])
        entries = {"pause": ("ragkube-testbed/pause:1", pause)}
        for name in found:
            entries[name] = (f"ragkube-testbed/{name}:{programs.PROGRAMS[name].version}", found[name])
        store = Store(self.state.root / "system")
        system = [
            store.make(reference, {f"/{name}": source}, Config(entrypoint=(f"/{name}",), user="65532:65532"))
            for name, (reference, source) in entries.items()
        ]
        with (self.state.images / "system.tar").open("wb") as archive:
            store.export(system, archive)

    def _start_namespaces(self) -> None:
        resolver = Path("/etc/resolv.conf").resolve()
        script = (
            f"mount --bind '{self.state.root}/resolv.conf' '{resolver}'; "  # names of Services resolve for `enter`
            "ip link set lo up; touch ready; while :; do wait -n || sleep 1; done"
        )
        (self.state.root / "ready").unlink(missing_ok=True)
        command = [
            "unshare",
            "-n",
            "-m",
            "-p",
            "-f",
            "--kill-child",
            "--propagation",
            "private",
            "--mount-proc",
        ]
        with (self.state.log / "init.log").open("w") as log:
            parent = subprocess.Popen(
                [*command, "bash", "-c", script],
                cwd=self.state.root,
                env={**os.environ, **self._environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until((self.state.root / "ready").exists, "the cluster's namespaces", timeout=60, pause=0.02)
        child = run(["pgrep", "-P", str(parent.pid), "-x", "bash"]).split()[0]
        (self.state.root / "init.pid").write_text(child)

    def _start_control_plane(self) -> None:
        run(["bash", NODE_SCRIPTS / "certs.sh", self.state.root, *self.nodes()])
        self.enter_quietly(["bash", str(NODE_SCRIPTS / "control-plane.sh"), str(self.state.root)])

    def _start_nodes(self) -> None:
        starting = [subprocess.Popen(self._node_command("up", node)) for node in self.nodes()]
        failed = [process for process in starting if process.wait()]  # wait for all of them
        if failed:
            raise TestbedError(f"a node did not start, see {self.state.root}/nodes/*/init.log")
        self.enter_quietly(
            ["ip", "route", "replace", "10.96.0.0/16", "via", "172.30.0.11"]
        )  # Services, from inside

    def _expose(self) -> None:
        """Loopback ports for clients on the host: the API server, and a proxy to everything else."""
        port, proxy = self.relay(API_SERVER), self.relay(None)
        text = self.state.inner_kubeconfig.read_text().replace(API_SERVER, f"127.0.0.1:{port}")
        (self.state.root / "ports").write_text(f"{port} {proxy}")
        self.state.kubeconfig.touch(mode=0o600)
        self.state.kubeconfig.write_text(text)

    def _mend_relays(self) -> None:
        for port, target in zip(self._ports(), (API_SERVER, None), strict=True):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)):
                    self.relay(target, port)

    def _ports(self) -> list[int]:
        return [int(port) for port in (self.state.root / "ports").read_text().split()]

    def _install(self, addons: Sequence[str]) -> None:
        self.kubectl("apply", "-f", "-", stdin=volumes.pool(self.state.root / "pv", self.nodes()))
        self.kubectl("apply", "-f", str(NODE_SCRIPTS / "coredns.yaml"))
        for name in addons:
            self.kubectl("apply", "-f", str(NODE_SCRIPTS / f"{name}.yaml"))
        listing = ("get", "nodes", "-o", "name")
        wait_until(
            lambda: len(self.kubectl(*listing).split()) == self._size, "nodes to register", timeout=120
        )
        self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=180s")
        self.kubectl("-n", "kube-system", "rollout", "status", "deploy/coredns", "--timeout=180s")
        for name in addons:
            self.kubectl("-n", "kube-system", "rollout", "status", f"deploy/{name}", "--timeout=180s")
        if "metrics-server" in addons:
            self.kubectl(
                "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=180s"
            )

    # -- use ----------------------------------------------------------------------------------------------------------

    def nodes(self) -> list[str]:
        return [f"n{index}" for index in range(1, self._size + 1)]

    def kubeconfig(self) -> Path:
        return self.state.kubeconfig

    def kubectl_command(self) -> list[str]:
        return [str(self.state.bin / "kubectl"), f"--kubeconfig={self.state.kubeconfig}"]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run([*self.kubectl_command(), *arguments], stdin=stdin)

    def enter_command(self, command: Sequence[str]) -> list[str]:
        """What runs `command` inside: pods and Services are reached directly, their names resolve."""
        found = self._init()
        if found is None:
            raise TestbedError(f"cluster {self.state.name} is not up")
        path = f"PATH={self.state.bin}:{os.environ.get('PATH', '')}"
        outer = ["nsenter", "-t", str(found), "-n", "-m", "-p", f"--wd={Path.cwd()}", "env", path]
        return [*outer, *(f"{key}={value}" for key, value in self._environment().items()), *command]

    def enter_quietly(self, command: Sequence[str]) -> str:
        return run(self.enter_command(command))

    def relay(self, target: str | None, port: int = 0) -> int:
        """Relay a loopback port of the host to `target` inside; without a target it is an HTTP proxy."""
        return self._start_relay(target, port, subprocess.DEVNULL)[0]

    def forward(self, port: int, target: str) -> int:
        process = self._start_relay(target, port, subprocess.PIPE)[1]
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0  # the relay ends with our end of its pipe

    def _start_relay(
        self, target: str | None, port: int, stdin: int
    ) -> "tuple[int, subprocess.Popen[bytes]]":
        with (
            socket.create_server(("127.0.0.1", port), backlog=512) as listener,
            (self.state.log / "relay.log").open("a") as log,
        ):
            command = [
                sys.executable,
                "-I",
                "-S",
                str(_RELAY),
                str(listener.fileno()),
                *([target] if target else []),
            ]
            process = subprocess.Popen(
                self.enter_command(command),
                pass_fds=[listener.fileno()],
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            address: tuple[str, int] = listener.getsockname()
            return address[1], process

    def proxy(self) -> str:
        """The HTTP proxy that reaches pods and Services by name and address."""
        return f"http://127.0.0.1:{self._ports()[1]}"

    def load(self, archives: Sequence[Path]) -> None:
        """Import image archives into every node; a tag moves to the new image, running containers keep the old one."""
        with locked(self.state.id):
            for archive in archives:
                self._on_every_node(partial(self._import, archive))

    def bring(self, names: Sequence[str]) -> None:
        """Build images and import them into every node, without the layers that it has."""
        built = images.build(names)
        with locked("images"), locked(self.state.id), Timer("images loaded"):
            self._on_every_node(partial(self._give, built))

    def _import(self, archive: Path, node: str) -> None:
        run(self._node_command("enter", node, *_IMPORT, str(archive.resolve())))

    def _give(self, built: Sequence[Image], node: str) -> None:
        """Big layers become hard links in the node's store, which saves copying them; the rest is imported."""
        store = images.store()
        wanted = {blob for image in built for blob in store.blobs(image)}
        self._link(
            node, sorted(blob for blob in wanted - self._held(node) if store.blob(blob).stat().st_size > _BIG)
        )
        self._stream(node, built, self._held(node))
        missing = wanted - self._held(node)
        if missing:  # collected as garbage before its manifest came
            self._stream(node, built, self._held(node))

    def _held(self, node: str) -> set[str]:
        listed = run(self._node_command("enter", node, *_CTR, "content", "ls", "-q"))
        return {digest.removeprefix("sha256:") for digest in listed.split()}

    def _link(self, node: str, blobs: Sequence[str]) -> None:
        content = (
            self.state.root / "nodes" / node / "containerd" / "io.containerd.content.v1.content/blobs/sha256"
        )
        lines = ""
        for digest in blobs:
            source = images.store().blob(digest)
            (content / digest).unlink(missing_ok=True)  # what the node does not list is rubbish
            (content / digest).hardlink_to(source)
            lines += f"{digest} {source.stat().st_size} {source}\n"
        if lines:
            run(self._node_command("enter", node, "bash", "-ec", _INGEST), stdin=lines)

    def _stream(self, node: str, built: Sequence[Image], held: set[str]) -> None:
        with (self.state.log / "import.log").open("a") as log:
            command = self._node_command("enter", node, *_IMPORT, "-")
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
            if process.stdin:
                with process.stdin as stream:
                    images.store().export(built, stream, held)
            if process.wait():
                raise TestbedError(f"node {node} did not import images, see {self.state.log}/import.log")

    def _on_every_node(self, action: Callable[[str], None]) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(action, self.nodes()))

    def node(self, action: str, name: str) -> None:
        if name not in self.nodes():
            raise TestbedError(f"no node {name!r}; there are {', '.join(self.nodes())}")
        run(self._node_command("up" if action == "start" else action, name))

    def recycle(self) -> int:
        """Wipe and re-create the volumes whose claims are gone; how many."""
        with locked(self.state.id):
            gone = volumes.released(self.kubectl("get", "pv", "-o", "json"))
            if not gone:
                return 0
            root = self.state.root / "pv"
            self.kubectl("delete", "pv", "--wait=true", *(name for _, name in gone))
            volumes.wipe(root, (name for _, name in gone))
            items = volumes.as_list([volumes.volume(root, node, name) for node, name in gone])
            self.kubectl("create", "-f", "-", stdin=items)
            return len(gone)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        key, _, value = self.state.marker.partition("=")
        return {
            key: value,
            "KUBECONFIG": str(self.state.inner_kubeconfig),
            "S": str(self.state.root),
            "ID": self.state.id,
            "NNODES": str(self._size),
            "RESMEM": f"{_memory_mib() * 2 // 3}Mi",  # each of the nodes sees the whole machine
        }

    def _node_command(self, action: str, node: str, *rest: str) -> list[str]:
        index = [node.removeprefix("n")] if action == "up" else []
        return self.enter_command(["bash", str(NODE_SCRIPTS / "node.sh"), action, node, *index, *rest])

    def _init(self) -> int | None:
        """The first process of the cluster, if it lives: a pid alone may belong to somebody else by now."""
        file = self.state.root / "init.pid"
        pid = int(file.read_text() or 0) if file.exists() else 0
        return pid if pid and is_marked(Path(f"/proc/{pid}"), self.state.marker) else None


def is_marked(process: Path, marker: str) -> bool:
    try:
        environment = (process / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return marker.encode() in environment.split(b"\0")


def marked_processes(marker: str) -> Iterator[int]:
    """Every process that was started with the marker, but for this one."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid() and is_marked(process, marker):
            yield int(process.name)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _raise_limit(name: str, least: int) -> None:
    path = Path("/proc/sys") / name
    if int(path.read_text()) < least:
        say(f"raising {name.replace('/', '.')} to {least}")
        path.write_text(str(least))


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)
