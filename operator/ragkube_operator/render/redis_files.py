"""Files of a Redis pod: its configuration and the scripts of its probes.

The scripts use nothing but ``/bin/sh``, ``sleep`` and the command-line client, which every image has.
"""

from __future__ import annotations

from decimal import Decimal

from ragkube_operator.crd.base import amount
from ragkube_operator.crd.cache import REDIS_RESOURCES, ManagedRedis
from ragkube_operator.render import names

DIRECTORY = "/etc/ragkube"
AUTH_DIRECTORY = "/etc/ragkube-auth"
DATA = "/data"

_MEBIBYTE = 1024 * 1024


def files(redis: ManagedRedis) -> dict[str, str]:
    """Every file, by name."""
    client = f"{binary(redis)}-cli"
    return {
        "redis.conf": config(redis),
        "ready.sh": _READY.replace("CLIENT", client).replace("AUTH_DIRECTORY", AUTH_DIRECTORY),
        "alive.sh": _ALIVE.replace("CLIENT", client).replace("AUTH_DIRECTORY", AUTH_DIRECTORY),
        "hand-over.sh": _HAND_OVER.replace("CLIENT", client).replace("AUTH_DIRECTORY", AUTH_DIRECTORY),
    }


def binary(redis: ManagedRedis) -> str:
    """The stem of the programs' names."""
    return "valkey" if redis.flavor == "Valkey" else "redis"


def max_memory(redis: ManagedRedis) -> int:
    """What keys may take of the memory limit, in MiB; forking to persist them needs the rest."""
    limit = redis.resources.limits.get("memory") or REDIS_RESOURCES["limits"]["memory"]
    share = Decimal("0.5") if redis.storage is not None else Decimal("0.65")
    return max(int(amount(limit) * share) // _MEBIBYTE, 16)


def config(redis: ManagedRedis) -> str:
    """``redis.conf``. Only answers have a time to live: nothing else is ever evicted."""
    keys = max_memory(redis)
    persistence = (
        ["appendonly yes", "appendfsync everysec", 'save ""']
        if redis.storage is not None
        else ["appendonly no", 'save ""']
    )
    lines = [
        f"port {names.REDIS_PORT}",
        f"dir {DATA}",
        "cluster-enabled yes",
        f"cluster-config-file {DATA}/nodes.conf",
        "cluster-node-timeout 5000",
        "cluster-replica-validity-factor 0",
        "cluster-require-full-coverage no",
        "cluster-allow-replica-migration no",
        f"maxmemory {keys}mb",
        "maxmemory-policy volatile-lru",
        f"client-output-buffer-limit replica {max(keys // 4, 8)}mb {max(keys // 8, 4)}mb 60",
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        "shutdown-timeout 5",
        "tcp-keepalive 60",
        *persistence,
        f"include {AUTH_DIRECTORY}/auth.conf",
    ]
    return "\n".join(lines) + "\n"


_READY = """\
# Ready: the cluster serves as this node sees it, and this node has a part in it: slots, or a copy of a primary.
# A pod that has just joined has neither: a rollout waits for it before it takes the next one.
read -r REDISCLI_AUTH < AUTH_DIRECTORY/password || :
export REDISCLI_AUTH
ask() { CLIENT --no-auth-warning "$@" 2>&1; }
case "$(ask cluster info)" in
  *cluster_state:ok*) ;;
  *) echo "the cluster is not formed, or most of it is away"; exit 1 ;;
esac
set -- $(ask role)
[ "$1" = slave ] && [ "$4" = connected ] && exit 0
[ "$1" = slave ] && { echo "the copy of the primary is not complete: $4"; exit 1; }
slots=$(ask cluster nodes | while read -r id address flags primary ping pong epoch link slots; do
  case "$flags" in *myself*) echo "$slots" ;; esac
done)
[ -n "$slots" ] && exit 0
echo "neither slots nor a primary to copy"
exit 1
"""

_ALIVE = """\
# Alive: the server answers anything at all; while it loads or waits for its primary it says so.
read -r REDISCLI_AUTH < AUTH_DIRECTORY/password || :
export REDISCLI_AUTH
case "$(CLIENT --no-auth-warning ping 2>&1)" in
  *PONG*|*LOADING*|*MASTERDOWN*|*BUSY*|*NOAUTH*|*WRONGPASS*) exit 0 ;;
esac
exit 1
"""

_HAND_OVER = """\
# Before a primary ends, one of its replicas takes over: no write is lost and nobody waits for a time-out.
read -r REDISCLI_AUTH < AUTH_DIRECTORY/password || :
export REDISCLI_AUTH
role() { CLIENT --no-auth-warning role | { read -r first; echo "$first"; }; }
replica() {
  while read -r id address flags rest; do
    case "$flags" in
      *fail*|*handshake*|*noaddr*) ;;
      *slave*) echo "${address%%@*}"; return ;;
    esac
  done
}
[ "$(role)" = master ] || exit 0
address=$(CLIENT --no-auth-warning cluster replicas "$(CLIENT --no-auth-warning cluster myid)" | replica)
[ -n "$address" ] || exit 0
CLIENT --no-auth-warning -h "${address%:*}" -p "${address##*:}" cluster failover || exit 0
tries=0
while [ "$tries" -lt 25 ] && [ "$(role)" = master ]; do
  sleep 0.2
  tries=$((tries + 1))
done
exit 0
"""
