"""Panels of one kind look alike on every dashboard."""

from __future__ import annotations

from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from ragkube_operator.render import dashboards as files
from ragkube_operator.render.rules import Scope

SCOPE = Scope(files.NAMESPACE, files.DEPLOYMENT)
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24


@dataclass
class Board:
    """A dashboard in the making."""

    name: str
    title: str
    description: str
    rows: list[tuple[str, list[Any]]] = field(default_factory=list)

    def row(self, title: str, *panels: Any) -> None:
        """Add a row."""
        self.rows.append((title, list(panels)))

    def build(self) -> Any:
        """The dashboard as Grafana's model."""
        result = (
            dashboard.Dashboard(f"ragkube / {self.title} / {files.NAMESPACE}/{files.DEPLOYMENT}")
            .uid(f"ragkube-{self.name}-{files.IDENTITY}")
            .description(self.description)
            .tags(["ragkube"])
            .readonly()
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .refresh("30s")
            .time("now-1h", "now")
            .timezone("browser")
            .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
            .link(
                dashboard.DashboardLink("ragkube")
                .type(DashboardLinkType.DASHBOARDS)
                .tags(["ragkube"])
                .as_dropdown(True)
                .keep_time(True)
            )
        )
        for title, panels in self.rows:
            result = result.with_row(dashboard.Row(title))
            for panel in panels:
                result = result.with_panel(panel.span(WIDTH // len(panels)))
        return result.build()


def query(expr: str, legend: str = "") -> prometheus.Dataquery:
    """A range query."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").range()


def number(
    title: str,
    expr: str,
    unit: str,
    description: str,
    *limits: tuple[float, str],
    below: str = "",
    nothing: str = "none",
) -> stat.Panel:
    """One figure; ``limits`` are the values from which it has a colour, ``below`` its colour under the first one.

    ``nothing`` stands in its place while the query has no value.
    """
    lowest = below or ("green" if limits else "text")
    steps = [Threshold(value=None, color=lowest), *(Threshold(value=v, color=c) for v, c in limits)]
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .no_value(nothing)
        .datasource(SOURCE)
        .height(4)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(query(expr).ref_id("A"))
    )


def zero(label: str) -> str:
    """What a sum by ``label`` shows while nothing has been counted."""
    return f'or on () label_replace(vector(0), "{label}", "none", "", "")'


def states(title: str, expr: str, legend: str, description: str) -> statetimeline.Panel:
    """Over time, for each series: up (1) or down (0)."""
    names = {
        "1": ValueMappingResult(text="up", color="green"),
        "0": ValueMappingResult(text="down", color="red"),
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .height(8)
        .mappings([ValueMap(options=names)])
        .with_target(query(expr, legend).ref_id("A"))
    )


def graph(
    title: str, unit: str, description: str, *queries: prometheus.Dataquery, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(SOURCE)
        .height(8)
        .min(0)
        .line_width(1)
        .fill_opacity(20 if stacked else 8)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel = panel.stacking(StackingConfig().mode(StackingMode.NORMAL))
    for letter, each in zip(ascii_uppercase, queries, strict=False):
        # Grafana tells the answers of a panel's queries apart by it
        panel = panel.with_target(each.ref_id(letter))
    return panel


def buckets(title: str, expr: str, description: str) -> heatmap.Panel:
    """A histogram over time."""
    target = query(expr, "{{le}}").format(PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .datasource(SOURCE)
        .height(8)
        .with_target(target.ref_id("A"))
    )
