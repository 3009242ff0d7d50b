"""Does the cache earn its keep? Hits, misses, and the Redis Cluster below."""

from __future__ import annotations

from dashboards.panels import SCOPE, Board, graph, number, query, zero
from ragkube_operator.render.rules import Record

CURRENT = "[$__rate_interval]"


def board() -> Board:
    """The dashboard."""
    found = Board("cache", "Cache", "Hits and misses, and the Redis Cluster below.")
    found.row("Now", *_now())
    found.row("Answers", *_answers())
    found.row("Redis", *_redis())
    found.row("Redis, more", *_more())
    return found


def _redis_metric(name: str) -> str:
    return SCOPE.metric(name, component="redis")


def _now() -> list[object]:
    slots = f"min({_redis_metric('redis_cluster_slots_ok')})"
    troubles = f"sum(rate({SCOPE.metric('rag_cache_errors_total')}{CURRENT})) or on () vector(0)"
    evicted = f"sum(rate({_redis_metric('redis_evicted_keys_total')}{CURRENT}))"
    keys = f"sum({_redis_metric('redis_db_keys')} * on (instance) ({PRIMARY}))"
    return [
        number("Slots served", slots, "none", "16384 is all.", (16384, "green"), below="red"),
        number("Evicted", evicted, "ops", "Before their time.", (1, "orange")),
        number("Redis nodes", f"sum({_redis_metric('redis_up')})", "none", "That answer."),
        number("Troubles", troubles, "ops", "Unavailable, corrupt …", (0.001, "red")),
        number(
            "Hit ratio", SCOPE.recorded(Record.HIT_RATIO), "percentunit", "Of answers.", nothing="no traffic"
        ),
        number("Hits", SCOPE.recorded(Record.HITS), "reqps", "Questions it answered."),
        number("Misses", SCOPE.recorded(Record.MISSES_ALL), "reqps", "Questions it did not."),
        number("Keys", keys, "short", "In the primaries."),
    ]


_PRIMARIES = SCOPE.metric("redis_instance_info", 'role="master"', component="redis")
PRIMARY = f"max by (instance) ({_PRIMARIES})"


def _answers() -> list[object]:
    hits, errors = SCOPE.metric("rag_cache_hits_total"), SCOPE.metric("rag_cache_errors_total")
    misses = SCOPE.metric("rag_cache_misses_total")
    return [
        graph(
            "Hit ratio", "percentunit", "Over all look-ups.", query(SCOPE.recorded(Record.HIT_RATIO), "ratio")
        ),
        graph(
            "Hits by level and kind",
            "ops",
            "A second.",
            query(f"sum by (level, kind) (rate({hits}{CURRENT}))", "{{level}} {{kind}}"),
            stacked=True,
        ),
        graph(
            "Misses by kind",
            "ops",
            "A second.",
            query(f"sum by (kind) (rate({misses}{CURRENT}))", "{{kind}}"),
            stacked=True,
        ),
        graph(
            "Troubles",
            "ops",
            "A second: unavailable, corrupt, oversized.",
            query(f"sum by (reason) (rate({errors}{CURRENT})) {zero('reason')}", "{{reason}}"),
        ),
    ]


def _redis() -> list[object]:
    return [
        graph(
            "Commands",
            "ops",
            "A second, by node.",
            query(f"rate({_redis_metric('redis_commands_processed_total')}{CURRENT})", "{{pod}}"),
        ),
        graph(
            "Memory",
            "bytes",
            "In use, by node.",
            query(_redis_metric("redis_memory_used_bytes"), "{{pod}}"),
            query(f"max({_redis_metric('redis_memory_max_bytes')})", "limit"),
        ),
        graph(
            "Evicted and expired",
            "ops",
            "Entries a second.",
            query(f"sum(rate({_redis_metric('redis_evicted_keys_total')}{CURRENT}))", "evicted"),
            query(f"sum(rate({_redis_metric('redis_expired_keys_total')}{CURRENT}))", "expired"),
        ),
    ]


def _more() -> list[object]:
    return [
        graph(
            "Slots that are served",
            "none",
            "16384 is all; by node.",
            query(_redis_metric("redis_cluster_slots_ok"), "{{pod}}"),
        ),
        graph("Clients", "none", "By node.", query(_redis_metric("redis_connected_clients"), "{{pod}}")),
        graph(
            "CPU",
            "short",
            "Cores, by node.",
            query(f"rate({_redis_metric('redis_cpu_user_seconds_total')}{CURRENT})", "{{pod}}"),
        ),
        graph(
            "Network",
            "Bps",
            "Bytes out a second, by node.",
            query(f"rate({_redis_metric('redis_net_output_bytes_total')}{CURRENT})", "{{pod}}"),
        ),
    ]
