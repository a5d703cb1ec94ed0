import io

from spine_ray.show.plain import RowsBar, bar_text, fail


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_says_how_far_how_fast_and_how_long() -> None:
    assert bar_text(500, 2000, 10.0) == f"[{'=' * 7}{' ' * 23}] 500 of 2,000 pictures, 50 a second, 0:30 left"
    assert bar_text(500, None, 10.0) == "500 pictures, 50 a second"


def test_a_terminal_is_drawn_on_again_and_left_clean() -> None:
    times, stream = iter([0.0, 100.0, 100.1, 100.5]), Terminal()
    bar = RowsBar(stream, clock=lambda: next(times))
    for done in (0, 10, 20):  # from the 0 on, and too soon for the second
        bar.show(done, 100)
    bar.close()
    bar.close()
    assert stream.getvalue().count("\r") == 2
    assert "20 of 100 pictures, 40 a second" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[2K")


def test_a_file_gets_a_line_now_and_then() -> None:
    times, stream = iter([0.0, 0.0, 1.0, 11.0, 12.0]), io.StringIO()
    bar = RowsBar(stream, clock=lambda: next(times))
    for done in (0, 10, 110, 120):
        bar.show(done, None)
    bar.close()
    assert stream.getvalue() == "110 pictures, 10 a second\n"


def test_an_error_is_one_line(capsys) -> None:
    fail(ValueError("first\nsecond"))
    assert capsys.readouterr().err == "error: first second\n"
