"""Does the cache earn its keep? Hits, misses, and the Redis Cluster below."""

from __future__ import annotations

from dashboards.panels import SCOPE, Board, graph, number, query
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
    return [
        number("Hit ratio", SCOPE.recorded(Record.HIT_RATIO), "percentunit", "Answered from the cache."),
        number("Hits", SCOPE.recorded(Record.HITS), "reqps", "A second."),
        number("Misses", SCOPE.recorded(Record.MISSES_ALL), "reqps", "A second."),
        number("Redis nodes", f"sum({_redis_metric('redis_up')})", "short", "That answer the exporter."),
        number(
            "Keys",
            f"sum({_redis_metric('redis_db_keys')} * on (instance) ({PRIMARY}))",
            "short",
            "In the primaries.",
        ),
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
            "reqps",
            "A second.",
            query(f"sum by (level, kind) (rate({hits}{CURRENT}))", "{{level}} {{kind}}"),
            stacked=True,
        ),
        graph(
            "Misses by kind",
            "reqps",
            "A second.",
            query(f"sum by (kind) (rate({misses}{CURRENT}))", "{{kind}}"),
            stacked=True,
        ),
        graph(
            "Troubles",
            "reqps",
            "A second: unavailable, corrupt, oversized.",
            query(f"sum by (reason) (rate({errors}{CURRENT})) or on () vector(0)", "{{reason}}"),
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
            "short",
            "16384 is all; by node.",
            query(_redis_metric("redis_cluster_slots_ok"), "{{pod}}"),
        ),
        graph("Clients", "short", "By node.", query(_redis_metric("redis_connected_clients"), "{{pod}}")),
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
