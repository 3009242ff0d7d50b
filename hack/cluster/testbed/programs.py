"""Go programs from their published modules, built once and kept in the cache."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.testbed.paths import HERE, TestbedError, UnavailableError, cache_root, digest, locked
from cluster.testbed.shell import Timer, run, say

KUBE_SOURCE = HERE / "kube"
KUBE_NAMES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)


@dataclass(frozen=True)
class Program:
    """One `main` package of one version of a module."""

    module: str
    version: str
    package: str
    ldflags: str = ""
    tags: str = ""
    replace: str = ""
    # repeat the replace block of the module's own go.mod, without which it does not build
    own_replaces: bool = field(default=False, repr=False)


_PROMETHEUS = Program(
    "github.com/prometheus/prometheus",
    "v0.314.0",
    "",
    ldflags="-X github.com/prometheus/common/version.Version=3.14.0",
    tags="netgo,remove_all_sd,enable_dns_sd,enable_kubernetes_sd",
    replace="replace cloud.google.com/go => cloud.google.com/go v0.123.0",
)

KEDA_VERSION = "v2.20.2"
PROGRAMS = {
    "coredns": Program("github.com/coredns/coredns", "v1.14.7", "github.com/coredns/coredns"),
    "metrics-server": Program(
        "sigs.k8s.io/metrics-server", "v0.9.0", "sigs.k8s.io/metrics-server/cmd/metrics-server"
    ),
    "weaviate": Program(
        "github.com/weaviate/weaviate", "v1.39.0", "github.com/weaviate/weaviate/cmd/weaviate-server"
    ),
    "helm": Program(
        "helm.sh/helm/v4",
        "v4.2.4",
        "helm.sh/helm/v4/cmd/helm",
        ldflags="-X helm.sh/helm/v4/internal/version.version=v4.2.4",
    ),
    **{
        name: Program(**{**_PROMETHEUS.__dict__, "package": f"github.com/prometheus/prometheus/cmd/{name}"})
        for name in ("prometheus", "promtool")
    },
    "prometheus-adapter": Program(
        "sigs.k8s.io/prometheus-adapter", "v0.12.0", "sigs.k8s.io/prometheus-adapter/cmd/adapter"
    ),
    "redis_exporter": Program(
        "github.com/oliver006/redis_exporter",
        "v1.88.0",
        "github.com/oliver006/redis_exporter",
        ldflags="-X main.BuildVersion=v1.88.0",
    ),
    "kube-state-metrics": Program("k8s.io/kube-state-metrics/v2", "v2.20.0", "k8s.io/kube-state-metrics/v2"),
    "kube-network-policies": Program(
        "sigs.k8s.io/kube-network-policies",
        "v1.1.1",
        "sigs.k8s.io/kube-network-policies/cmd/kube-network-policies/standard",
    ),
    # the last release whose module carries its pages: later ones embed a folder that is not in it
    **{
        name: Program(
            "github.com/prometheus/alertmanager",
            "v0.31.1",
            f"github.com/prometheus/alertmanager/cmd/{name}",
            ldflags="-X github.com/prometheus/common/version.Version=0.31.1",
        )
        for name in ("alertmanager", "amtool")
    },
    **{
        f"keda-{name}": Program(
            "github.com/kedacore/keda/v2",
            KEDA_VERSION,
            f"github.com/kedacore/keda/v2/cmd/{name}",
            ldflags=f"-X github.com/kedacore/keda/v2/version.Version={KEDA_VERSION.removeprefix('v')}",
            own_replaces=True,
        )
        for name in ("operator", "adapter")
    },
}

# GONOSUMDB: one dependency of kube-network-policies is missing in the checksum database
_GO = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GONOSUMDB": "github.com/vishvananda/netlink"}


def program(name: str) -> Path:
    """The path of a program, built when the cache does not have it."""
    if name in KUBE_NAMES:
        return kube() / name
    if name not in PROGRAMS:
        raise TestbedError(f"unknown program {name!r}; known: {', '.join([*KUBE_NAMES, *PROGRAMS])}")
    wanted = PROGRAMS[name]
    target = program_path(name)
    if not target.exists():
        _build(name, target, lambda source: _module(wanted, name, source), _flags(wanted), wanted.package)
    return target


def kubectl() -> str:
    """The user's kubectl, or ours."""
    return shutil.which("kubectl") or str(program("kubectl"))


def program_path(name: str) -> Path:
    wanted = PROGRAMS[name]
    return cache_root() / "programs" / f"{name}-{wanted.version}-{digest(repr(wanted), length=8)}" / name


def kube() -> Path:
    """The directory with every Kubernetes program and etcd: links to one static binary called by its name."""
    folder = kube_path()
    target = folder / "kube"
    if not target.exists():
        _build("kube", target, _copy_kube, _kube_flags(), ".")
    for name in KUBE_NAMES:
        if not (folder / name).exists():
            (folder / name).symlink_to("kube")
    return folder


def kube_version() -> str:
    for line in (KUBE_SOURCE / "go.mod").read_text().splitlines():
        words = line.split()
        if words[:1] == ["k8s.io/kubernetes"]:
            return words[1]
    raise TestbedError("kube/go.mod names no version of k8s.io/kubernetes")


def kube_path() -> Path:
    files = [(KUBE_SOURCE / name).read_bytes() for name in ("go.mod", "go.sum", "main.go")]
    return cache_root() / "programs" / f"kube-{kube_version()}-{digest(*files, length=8)}"


def _flags(wanted: Program) -> list[str]:
    flags = ["-mod=mod", "-ldflags", f"-s -w {wanted.ldflags}".strip()]
    return [*flags, "-tags", wanted.tags] if wanted.tags else flags


def _kube_flags() -> list[str]:
    version = kube_version()
    major, minor, _ = version.removeprefix("v").split(".")
    stamp = "-s -w"  # without stamps the server calls itself v0.0.0 and charts with a kubeVersion refuse it
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        stamp += "".join(f" -X {package}.{key}={value}" for key, value in values.items())
    return ["-tags", "notest,grpcnotrace", "-ldflags", stamp]


def _copy_kube(source: Path) -> None:
    for name in ("go.mod", "go.sum", "main.go"):
        shutil.copy(KUBE_SOURCE / name, source)


def _module(wanted: Program, name: str, source: Path) -> None:
    # an own module: `go install package@version` refuses modules with replace directives
    replace = _replaces(wanted) if wanted.own_replaces else wanted.replace
    text = f"module ragkube.dev/hack/{name}\n\ngo 1.26.0\n\nrequire {wanted.module} {wanted.version}\n{replace}\n"
    (source / "go.mod").write_text(text)


def _replaces(wanted: Program) -> str:
    """The replace block of the module's go.mod."""
    lines = (module_source(wanted.module, wanted.version) / "go.mod").read_text().splitlines()
    first = lines.index("replace (")
    return "\n".join(lines[first : lines.index(")", first) + 1])


def module_source(module: str, version: str) -> Path:
    """The folder of a module's published files, downloaded when Go has not got it."""
    go = shutil.which("go")
    if not go:
        raise UnavailableError(f"reading the files of {module} needs Go 1.26")
    with tempfile.TemporaryDirectory() as folder:  # outside any module, whose go.mod would interfere
        found = run([go, "mod", "download", "-json", f"{module}@{version}"], env=_GO, cwd=Path(folder))
    return Path(json.loads(found)["Dir"])


def _build(name: str, target: Path, prepare: Callable[[Path], None], flags: list[str], package: str) -> None:
    go = shutil.which("go")
    if not go:
        raise UnavailableError(f"building {name} needs Go 1.26; or start a Docker engine and install kind")
    with locked("build"), tempfile.TemporaryDirectory() as folder:
        if target.exists():  # built while we waited
            return
        say(f"building {name} (once; minutes)")
        prepare(Path(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".new")
        command = [go, "build", "-trimpath", "-buildvcs=false", *flags, "-o", str(fresh), package]
        with Timer(f"built {name}"):
            run(command, env=_GO, cwd=Path(folder))
        fresh.rename(target)
