"""What does the model cost, and does it answer?"""

from __future__ import annotations

from dashboards.panels import SCOPE, Board, graph, number, query
from ragkube_operator.render.rules import Record

CURRENT = "[$__rate_interval]"
DOLLARS = SCOPE.metric("rag_llm_cost_dollars_total")


def board() -> Board:
    """The dashboard."""
    found = Board("cost", "Cost", "Dollars, tokens and calls of the language model.")
    found.row("Now", *_now())
    found.row("Money", *_money())
    found.row("Model", *_model())
    return found


def _now() -> list[object]:
    calls = SCOPE.metric("rag_llm_calls_total")
    asked = SCOPE.metric("rag_requests_total", 'route="/v1/query"')
    return [
        number(
            "Failed calls",
            SCOPE.recorded(Record.LLM_ERRORS),
            "percentunit",
            "Over all calls.",
            (0.1, "red"),
            nothing="no calls",
        ),
        number("24 hours", f"sum(increase({DOLLARS}[1d]))", "currencyUSD", "Up to now."),
        number("An hour", SCOPE.recorded(Record.COST), "currencyUSD", "At the present rate."),
        number("In this range", f"sum(increase({DOLLARS}[$__range]))", "currencyUSD", "Since the left edge."),
        number(
            "A question",
            f"sum(increase({DOLLARS}[$__range])) / (sum(increase({asked}[$__range])) > 0)",
            "currencyUSD",
            "With those that the cache answered.",
            nothing="none asked",
        ),
        number("Calls", f"sum(rate({calls}{CURRENT}))", "reqps", "Of the model, a second."),
    ]


def _money() -> list[object]:
    return [
        graph(
            "Dollars an hour by model",
            "currencyUSD",
            "At the rate of that moment.",
            query(f"3600 * sum by (model) (rate({DOLLARS}{CURRENT}))", "{{model}}"),
            stacked=True,
        ),
        graph(
            "Dollars in 24 hours",
            "currencyUSD",
            "Up to that moment.",
            query(f"sum by (model) (increase({DOLLARS}[1d]))", "{{model}}"),
            stacked=True,
        ),
    ]


def _model() -> list[object]:
    tokens, calls = SCOPE.metric("rag_llm_tokens_total"), SCOPE.metric("rag_llm_calls_total")
    latency = SCOPE.metric("rag_llm_latency_seconds_bucket")
    return [
        graph(
            "Tokens",
            "short",
            "A second, by model and direction.",
            query(f"sum by (model, direction) (rate({tokens}{CURRENT}))", "{{model}} {{direction}}"),
            stacked=True,
        ),
        graph(
            "Calls",
            "reqps",
            "A second, by model and outcome.",
            query(f"sum by (model, outcome) (rate({calls}{CURRENT}))", "{{model}} {{outcome}}"),
            stacked=True,
        ),
        graph(
            "Time of a call",
            "s",
            "95th percentile and median, by model; failed calls too.",
            *(
                query(
                    f"histogram_quantile({share}, sum by (model, le) (rate({latency}{CURRENT})))",
                    f"{{{{model}}}} {name}",
                )
                for share, name in ((0.95, "p95"), (0.5, "median"))
            ),
        ),
    ]
