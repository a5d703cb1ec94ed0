import pytest

from spine_ray.ladder.prediction import Effort, EffortSpan, Outcome, Prediction, Span, told_against


def prediction() -> Prediction:
    def outcome(name: str, verdicts: tuple[str, ...], *seconds: float) -> Outcome:
        whole = EffortSpan.of([Effort(wall_seconds=each, trials=2) for each in seconds])
        return Outcome(name=name, verdicts=verdicts, tiers=(("light", whole),), whole=whole)

    outcomes = (outcome("ends", ("stop",), 10.0, 20.0), outcome("climbs", ("climb", "climb"), 100.0, 150.0))
    return Prediction(spent_seconds=5.0, pixels_mb=1.0, workers=2, device="cpu", outcomes=outcomes)


def test_a_span_leaves_out_the_outermost_twentieth_on_either_side() -> None:
    assert Span.of([float(value) for value in range(101)]) == Span(5.0, 95.0)
    assert 5.0 in Span(5.0, 95.0)
    assert 95.1 not in Span(5.0, 95.0)
    assert Span.around([Span(3.0, 4.0), Span(1.0, 2.0)]) == Span(1.0, 4.0)


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0)])
def test_a_span_that_is_none_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="a span goes"):
        Span(low, high)


def test_a_prediction_holds_all_of_its_outcomes() -> None:
    wall = prediction().wall_seconds
    assert (wall.low, wall.high) == (pytest.approx(10.5), pytest.approx(147.5))
    assert prediction().outcomes[0].whole.trials == Span(2.0, 2.0)
    with pytest.raises(ValueError, match="at least one outcome"):
        Prediction(spent_seconds=5.0, pixels_mb=1.0, workers=2, device="cpu", outcomes=())


@pytest.mark.parametrize(
    ("verdicts", "seconds", "name", "is_inside"),
    [
        (("climb", "climb"), 120.0, "climbs", True),
        (("climb", "climb"), 20.0, "climbs", False),
        (("stop",), 20.0, "ends", False),
        (("stop",), 15.0, "ends", True),
        (("climb", "again", "climb"), 120.0, "another way than the predicted ones", True),
    ],
)
def test_what_it_took_is_held_against_the_way_the_gates_decided(
    verdicts: tuple[str, ...], seconds: float, name: str, is_inside: bool
) -> None:
    told = told_against(prediction(), verdicts, seconds)
    assert (told["outcome"], told["is_inside"], told["actual"]) == (name, is_inside, seconds)
