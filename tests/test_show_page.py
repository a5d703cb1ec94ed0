import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from spine_ray.ladder.gates import GateDecision
from spine_ray.show.board import Answer, BoardRow, EnsembleBoard, FailureRow, FinalBoard, FinalResult, MemberRow
from spine_ray.show.figure import Axis, cost_figure, log_ticks, loss_range, ticks
from spine_ray.show.page import ReportPage, page_html, write_report

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "br", "line", "circle"}
"""Elements without an end, or closed in themselves."""


def row(name="resnet18", tier="light", role="best", log_loss=0.5, minutes=10.0):
    return BoardRow(
        tier=tier,
        backbone=name,
        family="resnet",
        resolution=64,
        freeze=0.0,
        trial_id=f"{name}-64-f000-0a1b2c3d",
        role=role,
        log_loss=log_loss,
        low=log_loss - 0.05,
        high=log_loss + 0.05,
        accuracy=0.9,
        minutes=minutes,
        train_images_s=100.0,
        macs=10**9,
    )


def member(of):
    return MemberRow(
        trial_id=of.trial_id,
        backbone=of.backbone,
        family=of.family,
        weight=1.0,
        temperature=1.1,
        log_loss=0.5,
        rise=0.1,
        disagreement=0.0,
        cost_ms=2.0,
    )


@pytest.fixture
def page():
    rows = (row("a", role="start"), row("b", "mid", log_loss=0.4, minutes=30.0), row(EVIL, "heavy", log_loss=0.3))
    ensemble = EnsembleBoard(
        pool="log probabilities",
        log_loss=0.29,
        low=0.25,
        high=0.33,
        accuracy=0.95,
        single=rows[2].trial_id,
        gain=0.01,
        gain_low=0.001,
        gain_high=0.02,
        cost_ms=2.0,
        members=(member(rows[1]),),
    )
    result = FinalResult(
        artefact=EVIL, rows=10, log_loss=0.3, low=0.2, high=0.4, accuracy=0.9, accuracy_low=0.8, accuracy_high=1.0
    )
    gate = GateDecision(gate="sound", after="light", verdict="climb", reason=EVIL, numbers={EVIL: EVIL, "gain": 0.1})
    return ReportPage(
        study=EVIL,
        made=EVIL,
        answer=Answer(sentences=(EVIL,), commands=(EVIL,)),
        board=rows,
        gates=(gate,),
        ensemble=ensemble,
        final=FinalBoard(results=(result,), opened=1),
        failures=(FailureRow(trial_id=EVIL, tier=EVIL, reason=EVIL),),
        facts={EVIL: EVIL},
        reproduce=(EVIL,),
    )


class Balance(HTMLParser):
    """Checks that every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_nothing_in_it_runs(page):
    balance = Balance()
    balance.feed(page_html(page))
    assert balance.open == []
    assert "script" not in balance.seen
    assert {"svg", "table", "section"} <= balance.seen


NAMES = (
    "<img src=x onerror=\"document.title='owned'\">",
    "' onmouseover='document.title=1' \" autofocus onfocus=\"document.title='owned'\" x=\"",
    "</style></title></pre><script>document.title='owned'</script>",
    "\x1b]0;owned\x07\x00\u202e<svg onload=document.title='owned'>",
    "&lt;b&gt; &amp; javascript:document.title='owned' 🐈\u200d⬛ " + "x" * 300 + "\nnew line",
)


def with_names(page, name):
    gate = GateDecision(gate="sound", after=name, verdict="climb", reason=name, numbers={name: [name, name]})
    return replace(
        page,
        study=name,
        answer=Answer(sentences=(name,), commands=(name,)),
        board=(*page.board, row(name, "heavy"), row("c", name)),
        gates=(gate,),
        changed=(name,),
        failures=(FailureRow(trial_id=name, tier=name, reason=name),),
        facts={name: name},
        reproduce=(name, name),
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_name_commands_the_page_or_turns_its_text(page, name):
    text = page_html(with_names(page, name))
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert not balance.seen & {"script", "img"}
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert len(re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)[1].splitlines()) == 2, "a line a command"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.timeout(120)
def test_a_browser_runs_nothing_of_it(page, tmp_path):
    whole = page
    for name in NAMES:
        whole = replace(
            whole, failures=(*whole.failures, *with_names(page, name).failures), changed=(*whole.changed, name)
        )
    (tmp_path / "report.html").write_text(page_html(replace(whole, study=NAMES[0])), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{tmp_path}/report.html"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    title = re.findall(r"<title>(.*?)</title>", done.stdout)
    assert title[0].startswith("&lt;img src=x onerror")
    assert not re.search("<(script|img)", done.stdout)


def test_the_page_asks_nothing_of_the_network(page):
    text = page_html(page)
    assert not re.search(r"https?://|@import|url\(|src=|href=", text)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_every_part_of_the_study_is_on_the_page(page):
    text = page_html(page)
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Quality against cost",
        "Board",
        "Ensemble",
        "Test split",
        "Gates",
        "Failures",
        "Next",
        "How to reproduce",
    ]
    assert "opened once" in text
    assert "+0.0100 (+0.0010 to +0.0200)" in text


def test_a_page_of_an_unfinished_study_has_what_there_is():
    text = page_html(ReportPage(study="s", made="now", answer=Answer(sentences=("No.",), commands=()), board=()))
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Board"]
    assert "No trial has completed." in text


def test_a_report_is_replaced_whole_and_leaves_nothing_else(page, tmp_path):
    path = tmp_path / "deep" / "report.html"
    write_report(path, page)
    write_report(path, replace(page, study="second"))
    assert "<h1>second</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def points(svg):
    """Return (x, y) of each trial's point by its trial id."""
    found = {}
    for group in ElementTree.fromstring(svg).iter("g"):
        trial_id = group.find("title").text.split(", ")[1]
        point = next(circle for circle in group.iter("circle") if "point" in circle.get("class"))
        found[trial_id] = (float(point.get("cx")), float(point.get("cy")))
    return found


def test_the_figure_puts_cheaper_left_and_better_low():
    cheap, good = row("cheap", log_loss=0.9, minutes=1.0), row("good", log_loss=0.2, minutes=100.0)
    middle = row("middle", log_loss=0.55, minutes=10.0)
    at = points(cost_figure([cheap, good, middle], ()))
    assert at[cheap.trial_id][0] < at[middle.trial_id][0] < at[good.trial_id][0]
    assert at[cheap.trial_id][1] < at[middle.trial_id][1] < at[good.trial_id][1]
    # 10 is the geometric middle of 1 and 100, 0.55 the arithmetic one of 0.2 and 0.9.
    for axis in (0, 1):
        mean = (at[cheap.trial_id][axis] + at[good.trial_id][axis]) / 2
        assert at[middle.trial_id][axis] == pytest.approx(mean, abs=0.2)


def test_members_are_ringed_and_start_recipes_hollow():
    start, best = row("a", role="start"), row("b", "mid")
    svg = cost_figure([start, best], {best.trial_id})
    assert svg.count('class="ring"') == 1
    assert svg.count("point hollow") == 1
    assert 'class="t0"' in svg and 'class="t1"' in svg


def test_a_trial_on_the_board_twice_is_one_point():
    start = row("a", role="start")
    svg = cost_figure([start, replace(start, role="best")], ())
    assert svg.count("<title>") == 1
    assert "point hollow" in svg


@pytest.mark.parametrize("minutes", [0.0, 1e-9, 1e5])
def test_the_figure_of_one_trial_is_drawn_whatever_it_cost(minutes):
    (at,) = points(cost_figure([row(minutes=minutes)], ())).values()
    assert 64 <= at[0] <= 936
    assert 20 <= at[1] <= 368


def test_no_figure_without_a_scored_trial():
    assert cost_figure([replace(row(), log_loss=None)], ()) == ""


def test_a_wide_interval_does_not_drown_the_points():
    wide = replace(row("a", log_loss=0.5), high=50.0)
    low, high = loss_range([wide, row("b", log_loss=0.4)])
    assert low < 0.4
    assert 0.5 < high < 0.6


def test_ticks_are_round_and_inside():
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.31, 0.49) == pytest.approx([0.35, 0.4, 0.45])
    assert log_ticks(0.9, 30.0) == pytest.approx([1, 2, 5, 10, 20])
    assert log_ticks(0.001, 1000.0) == pytest.approx([10.0**power for power in range(-3, 4)])


def test_an_axis_keeps_values_inside():
    axis = Axis(low=1.0, high=100.0, start=0.0, end=10.0, is_log=True)
    assert [axis.place(value) for value in (0.1, 1.0, 10.0, 1000.0)] == pytest.approx([0.0, 0.0, 5.0, 10.0])
