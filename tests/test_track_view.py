import base64
import json
import zlib

from spine_ray.study.tables import Cost
from spine_ray.study.trials import trials_from_events
from spine_ray.track.records import trial_metrics, trial_params
from spine_ray.track.view import comparison_view
from tests.support.tracked import started, whole_trial


def view() -> dict[str, object]:
    return json.loads(zlib.decompress(base64.b64decode(comparison_view().removeprefix("deflate;"))))


def test_the_comparison_draws_only_what_every_completed_trial_carries() -> None:
    trial = next(iter(trials_from_events(whole_trial(started())).values()))
    names = {field: 1.0 for field in Cost.__dataclass_fields__}
    cost = Cost(**{**names, "backbone": trial.config.backbone, "resolution": 32, "freeze": 0.5})
    carried = (
        trial_params(trial.started).keys() | trial_metrics(trial, {cost.key: cost}).keys() | {"log_loss", "accuracy"}
    )
    for chart in view()["compareRunCharts"]:
        wanted = {
            *chart.get("selectedParams", ()),
            *chart.get("selectedMetrics", ()),
            *chart.get("selectedMetricKeys", ()),
        }
        wanted |= {chart[axis]["key"] for axis in ("xaxis", "yaxis") if axis in chart}
        assert wanted <= carried
        assert wanted


def test_every_chart_stands_in_a_section() -> None:
    sections = {section["uuid"] for section in view()["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in view()["compareRunCharts"]} <= sections


def test_the_view_fits_into_a_tag_of_an_experiment() -> None:
    assert len(comparison_view()) < 5000
