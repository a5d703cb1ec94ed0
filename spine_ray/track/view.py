"""The comparison as the MLflow UI shows it at once: its address, and what it is to draw there."""

import base64
import json
import zlib
from typing import Any

KIND_TAG = "spine.kind"
EARLIER = "earlier"
"""Kind of a run whose trial was trained again on other rows, or whose ensemble was chosen anew."""
VIEW = "spine"
"""Name of the view in the address."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of an experiment in which MLflow's UI looks for a view that is shared by its address."""

PARAMS = ("tier", "family", "backbone", "resolution", "freeze")
METRICS = ("cost", "oof_accuracy", "oof_log_loss")
"""The last one gives the lines their colour."""
COLUMNS = ("params.`tier`", "params.`backbone`", "metrics.`oof_log_loss`", "metrics.`oof_accuracy`", "metrics.`cost`")


def comparison_address(base: str, experiment_id: str) -> str:
    """Return the address at which a server shows the comparison."""
    query = f"workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey={VIEW}"
    return f"{base}/#/experiments/{experiment_id}/runs?{query}"


def comparison_view() -> str:
    """Return the view in MLflow's own form: trials and the ensemble, best first, and three kinds of chart.

    Parallel coordinates over what was chosen against what came of it, cost against log-loss, and the curves.
    """
    state = {
        "searchFilter": " AND ".join(f"tags.`{KIND_TAG}` != '{kind}'" for kind in ("tier", EARLIER)),
        "orderByKey": "metrics.`oof_log_loss`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
        "compareRunSections": [
            _section("Comparison", columns=1, height=520),
            _section("Cost and curves", columns=2, height=420),
            {**_section("Model metrics"), "display": False, "isGenerated": True},
        ],
        "compareRunCharts": [
            _parallel(),
            _scatter("cost"),
            _scatter("cost_macs"),
            _curve("log_loss"),
            _curve("accuracy"),
        ],
    }
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()


def _section(name: str, columns: int = 3, height: int = 360) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": name,
        "display": True,
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": height,
    }


def _chart(section: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    return {
        "uuid": f"{kind} {name}",
        "type": kind,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100,
        **rest,
    }


def _parallel() -> dict[str, Any]:
    return _chart(
        "Comparison",
        "PARALLEL",
        "comparison",
        selectedParams=list(PARAMS),
        selectedMetrics=list(METRICS),
        showAllRuns=True,
    )


def _scatter(cost: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": cost, "type": "METRIC"}, "yaxis": {"key": "oof_log_loss", "type": "METRIC"}}
    return _chart("Cost and curves", "SCATTER", cost, **axes)


def _curve(metric: str) -> dict[str, Any]:
    return _chart(
        "Cost and curves",
        "LINE",
        metric,
        metricKey=metric,
        selectedMetricKeys=[metric],
        displayName=metric,
        lineSmoothness=0,
        xAxisScaleType="linear",
        scaleType="linear",
        range={},
        xAxisKey="step",
        selectedXAxisMetricKey="",
        yAxisKey="metric",
        yAxisExpressions=[],
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )
