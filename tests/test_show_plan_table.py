import io

from rich.console import Console

from spine_ray.ladder.prediction import Effort, EffortSpan, Outcome, Prediction
from spine_ray.show.plan_table import print_plan


def printed(note: str = "") -> str:
    efforts = [
        Effort(
            trials=4, epochs=48, images=46_000, device_seconds=72.0 * times, wall_seconds=40.0 * times, disk_mb=3.0,
            peak_mb=2100.0,
        )
        for times in (1.0, 2.0)
    ]  # fmt: skip
    span = EffortSpan.of(efforts)
    outcome = Outcome(name="heavy opens", verdicts=("climb", "climb"), tiers=(("light", span),), whole=span)
    console = Console(width=120, record=True, file=io.StringIO())
    print_plan(
        console,
        Prediction(spent_seconds=28.0, pixels_mb=9.6, workers=2, device="cpu", outcomes=(outcome,), note=note),
    )
    return console.export_text()


def test_a_plan_shows_every_outcome_by_tier_and_in_all() -> None:
    text = printed()
    assert text.startswith("What it will take on 2 CPU workers; nothing was trained")
    lines = [line.split() for line in text.splitlines()]
    light, whole = (
        next(line for line in lines if line[:1] == ["light"]),
        next(line for line in lines if line[:1] == ["in"]),
    )
    assert light[1:4] == ["4", "48", "46k"]
    assert whole[2:] == light[1:]
    assert "42 s to 1 min 18 s" in text
    assert "0.021 to 0.039" in text
    assert "28 s of it are over" in text
    assert "NOTE" not in text


def test_what_rests_on_an_assumption_says_so() -> None:
    assert "NOTE: no GPU was measured." in printed("no GPU was measured")
