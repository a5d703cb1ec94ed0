import pytest

from spine_ray.space.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("45", 45), (45, 45), (" 2 h ", 7200), (0.5, 0.5)]
)
def test_parse_duration_reads_every_form(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3m", "30 min", "1h30m", "0s", "nan", "1e3"])
def test_parse_duration_names_the_forms_when_it_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=f"90s, 30m, 2h or as plain seconds, above 0; not '{text}'"):
        parse_duration(text)
