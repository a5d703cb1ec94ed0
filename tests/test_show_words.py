import pytest

from spine_ray.show.words import (
    change_text,
    count_text,
    duration_text,
    interval_text,
    loss_text,
    minutes_text,
    number_text,
    one_line,
    rate_text,
    share_text,
    times_text,
)


def test_losses_have_four_decimals_and_shares_one():
    assert loss_text(0.12345) == "0.1235"
    assert change_text(0.01) == "+0.0100"
    assert interval_text(0.1, 0.2) == "0.1000 to 0.2000"
    assert share_text(0.9714) == "97.1 %"


def test_what_does_not_exist_is_a_dash():
    writers = (loss_text, change_text, share_text, minutes_text, duration_text, count_text, rate_text, number_text)
    assert {writer(None) for writer in writers} == {"-"}
    assert interval_text(None, 0.2) == "-"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3600, "1 h 00 min"),
        (7384, "2 h 03 min"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999"), (1000, "1k"), (999_400, "999k"), (999_600, "1M"), (4_089_284_608, "4.09G"), (2e12, "2T")],
)
def test_a_large_count_has_three_digits(value, text):
    assert count_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(3.14159, "3.1"), (1234.4, "1234"), (12_345.0, "12.3k")])
def test_a_rate_keeps_the_digits_that_matter(value, text):
    assert rate_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.126, "0.13"), (2.26, "2.3"), (240.4, "240")])
def test_minutes_keep_the_decimals_that_matter(value, text):
    assert minutes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (7, "7"),
        (0.123456, "0.1235"),
        ((0.1, 0.2), "0.1 to 0.2"),
        ([3, 7], "3, 7"),
        ([], "none"),
        (["cat", "a\tb"], r"cat, a\tb"),
        (list(range(8)), "0, 1, 2, 3, 4, 5, 6, 7"),
        (list(range(20)), "0, 1, 2, 3, 4, 5, 6, 7, and 12 more"),
        ({"min_effect": 0.01}, "min effect 0.01"),
        ("text", "text"),
    ],
)
def test_evidence_of_any_kind_can_be_written(value, text):
    assert number_text(value) == text


def test_how_often_is_said_in_words():
    assert [times_text(count) for count in (1, 2, 3)] == ["once", "twice", "3 times"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cat", "cat"),
        ("cat\ndog\r\t", r"cat\ndog\r\t"),
        ("\x1b[2J\x9b31m\x07\0", r"\x1b[2J\x9b31m\x07\x00"),
        ("\u202egnp.tac\u2066", r"\u202egnp.tac\u2066"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("a/\udcff", r"a/\udcff"),
        ("🐈\u200d⬛ ❤️ naïve 漢字 a\u00a0b", "🐈\u200d⬛ ❤️ naïve 漢字 a\u00a0b"),
    ],
)
def test_what_commands_a_terminal_is_spelt_out_and_the_rest_stays(text, told):
    assert one_line(text) == told


def test_a_long_name_is_cut():
    assert one_line("abcdef", 6) == "abcdef"
    assert one_line("abcdefg", 6) == "abcde\u2026"
