"""The README's pictures: the terminal, the comparison and the report of a study that is there, in headless Chromium.

make search                                            # the study that they show
python -m docs.screenshots --study studies/ladder-digits --space ladder
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.chromium import Page, open_page

PICTURES = Path(__file__).parent / "pictures"
COLUMNS = 120
ROWS = 46
"""Lines of the terminal that are shown: its last ones."""
REPORT, COMPARISON = (1440, 1000), (1600, 1300)
"""Width and height of the pictures of pages, px; MLflow draws only the charts that are in sight."""


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--space", required=True, help="the space that made it: the same search again trains nothing")
    given = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, open_page(Path(folder, "profile")) as page:
        words = ["spine_ray.search", "--space", given.space, "--study", str(given.study)]
        drawn = Path(folder, "terminal.svg")
        drawn.write_text(_terminal(_printed(words), f"python -m {' '.join(words)}"))
        _picture_of(page, drawn)
        _resize(page, *REPORT)
        page.open(given.study.joinpath("report.html").resolve().as_uri())
        page.wait_for("document.readyState === 'complete' && document.querySelector('svg, img') !== null")
        page.screenshot(PICTURES / "report.png")
        with _comparison(given.study) as address:
            _resize(page, *COMPARISON)
            page.open(address)
            page.wait_for(
                "document.querySelectorAll('.parcoords canvas').length && "
                "document.querySelectorAll('.js-plotly-plot').length"
            )
            page.evaluate("document.querySelector('button[aria-label*=lose]')?.click()")  # what hides the charts
            page.evaluate("new Promise(done => setTimeout(done, 3000))")  # until the lines are drawn
            page.screenshot(PICTURES / "compare.png")


def _printed(words: list[str]) -> str:
    """Return what a command prints on a terminal of some columns, with its colours, without what moves."""
    environment = {**os.environ, "FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS), "TERM": "xterm"}
    return subprocess.run(
        [sys.executable, "-m", *words], env=environment, text=True, capture_output=True, check=True
    ).stdout


def _terminal(printed: str, title: str) -> str:
    """Draw the last lines as a terminal shows them."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text("\n").join(Text.from_ansi(printed).split("\n")[-ROWS:]), soft_wrap=True)
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)


def _picture_of(page: Page, drawn: Path) -> None:
    page.open(drawn.as_uri())
    _, _, wide, high = map(float, page.wait_for("document.documentElement.getAttribute('viewBox')").split())
    page.call(
        "Emulation.setDeviceMetricsOverride", width=int(wide), height=int(high), deviceScaleFactor=1, mobile=False
    )
    page.screenshot(PICTURES / "search.png")
    _resize(page, int(wide), int(high))
    page.screenshot(PICTURES / "search.png")


def _resize(page: Page, wide: int, high: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=wide, height=high, deviceScaleFactor=1, mobile=False)


@contextmanager
def _comparison(study: Path) -> Iterator[str]:
    """Give the address of the comparison while `compare` serves it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "spine_ray.compare", str(study), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()
