import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from spine_ray.ladder.gates import GateDecision
from spine_ray.show.board import Answer, BoardRow, EnsembleBoard, FailureRow, FinalBoard, FinalResult, MemberRow
from spine_ray.show.figures import draw_figures, save_figures
from spine_ray.show.page import page_html, write_report
from spine_ray.show.page_parts import bar, loss_range, name
from spine_ray.show.report import (
    ClassRow,
    Curve,
    Expected,
    Gallery,
    Picture,
    ReliabilityCurve,
    ReportPage,
    SizeGain,
    Timing,
    TrialPoint,
)

EVIL = '<script>alert("x")</script>\n\u202e'
VOID = {"meta", "br", "img"}
"""Elements without an end."""


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


def point(of):
    return TrialPoint(
        trial_id=of.trial_id,
        tier=of.tier,
        backbone=of.backbone,
        family=of.family,
        resolution=of.resolution,
        freeze=of.freeze,
        is_start=of.role == "start",
        log_loss=of.log_loss,
        minutes=of.minutes,
        cost_ms=1.0,
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


def picture(kind, answer="dog"):
    return Picture(
        kind=kind,
        sample_id="0a",
        path=EVIL,
        label="cat",
        answer=answer,
        share=0.9,
        disagreement=0.25,
        said=((EVIL, "dog", 0.8), ("vit", "cat", 0.6)),
        jpeg=b"\xff\xd8",
    )


@pytest.fixture
def page():
    return make_page()


def make_page():
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
    gate = GateDecision(
        gate="sound", after="light", verdict="climb", reason=EVIL, numbers={EVIL: EVIL, "gain": 0.1}, findings=(EVIL,)
    )
    return ReportPage(
        study=f"studies/{EVIL}",
        made=EVIL,
        answer=Answer(sentences=(EVIL, "Two."), commands=(EVIL, "open it")),
        board=rows,
        points=tuple(map(point, rows)),
        curves=tuple(
            Curve(trial_id=of.trial_id, tier=of.tier, backbone=of.backbone, status=None, steps=(1,), log_losses=(1.0,))
            for of in rows
        ),
        gates=(gate,),
        ensemble=ensemble,
        sizes=tuple(SizeGain(members=n, gain=0.1, low=0.0, high=0.2) for n in (1, 2)),
        calibration=(
            ReliabilityCurve(
                name=EVIL, error=0.02, confidence=(0.9,), accuracy=(0.8,), low=(0.7,), high=(0.9,), rows=(5,)
            ),
        ),
        error_before=0.1234,
        classes=(ClassRow(name=EVIL, rows=8, predicted=5, hits=4, confused_with="dog", confused_rows=3),),
        gallery=Gallery(pictures=(picture("all err"), picture("disagree", "cat")), all_err=7, rows=80, note=EVIL),
        final=FinalBoard(results=(result,), opened=1),
        failures=(FailureRow(trial_id=EVIL, tier=EVIL, reason=EVIL),),
        timing=Timing(
            expected=(Expected(name=EVIL, low=60.0, high=90.0), Expected(name="b", low=30.0, high=40.0)),
            happened="b", low=30.0, high=40.0, actual=50.0,
        ),
        facts={EVIL: EVIL},
        changed=(EVIL,),
        reproduce=(EVIL,),
        made_of={EVIL: EVIL},
    )  # fmt: skip


@pytest.fixture(scope="module")
def figures():
    """Return the figures of `page`, drawn once: drawing is what takes time."""
    return draw_figures(make_page())


@pytest.fixture
def drawn(figures):
    """Return a function that makes the HTML of a page; its figures are those of `page`."""
    return lambda page: page_html(page, figures)


class Balance(HTMLParser):
    """Checks that every element is closed in order, and keeps what is asked of the outside."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.asked = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.asked += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_nothing_in_it_runs(page, drawn):
    balance = Balance()
    balance.feed(drawn(page))
    assert balance.open == []
    assert not {"script", "iframe", "object", "link", "form"} & balance.seen
    assert {"svg", "table", "section", "img"} <= balance.seen


NAMES = (
    "<img src=x onerror=\"document.title='owned'\">",
    "' onmouseover='document.title=1' \" autofocus onfocus=\"document.title='owned'\" x=\"",
    "</style></title></pre><script>document.title='owned'</script>",
    "\x1b]0;owned\x07\x00\u202e<svg onload=document.title='owned'>",
    "&lt;b&gt; &amp; javascript:document.title='owned' 🐈\u200d⬛ " + "x" * 300 + "\nnew line",
)


def with_names(page, name):
    gate = GateDecision(
        gate="sound", after=name, verdict="climb", reason=name, numbers={name: [name, name]}, findings=(name,)
    )
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
def test_no_name_commands_the_page_or_turns_its_text(page, drawn, name):
    text = drawn(with_names(page, name))
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert "script" not in balance.seen
    assert not any("onerror" in value or value == "x" for value in balance.asked)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert len(re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL)[1].splitlines()) == 2, "a line a command"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a browser")
@pytest.mark.timeout(120)
def test_a_browser_runs_nothing_of_it(page, drawn, tmp_path):
    whole = page
    for each in NAMES:
        whole = replace(
            whole, failures=(*whole.failures, *with_names(page, each).failures), changed=(*whole.changed, each)
        )
    (tmp_path / "report.html").write_text(drawn(replace(whole, study=NAMES[0])), encoding="utf-8")
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
    assert not re.search(r"<script|<img [^>]*src=.?x", done.stdout)


def test_the_page_asks_nothing_of_the_network(page, drawn):
    text = drawn(page)
    balance = Balance()
    balance.feed(text)
    assert balance.asked
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in balance.asked)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_what_others_named_cannot_turn_or_break_lines(page, drawn):
    text = drawn(page)
    assert "\u202e" not in text
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;\\n\\u202e" in text


def test_every_part_of_the_study_is_on_the_page_and_linked(page, drawn):
    text = drawn(page)
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == [
        "Quality against cost",
        "Test split",
        "Gates",
        "Controlled comparison",
        "Best found",
        "Ensemble",
        "Learning curves",
        "Resolution and freeze depth",
        "Calibration",
        "Classes",
        "Pictures worth a look",
        "Failures",
        "Predicted and actual time",
        "What the last search changed",
        "Next",
        "How to reproduce",
    ]
    links = re.findall(r'<a href="#(.*?)">', text)
    assert links == re.findall(r'<section id="(.*?)">', text)
    assert "opened once" in text
    assert "+0.0100 (+0.0010 to +0.0200)" in text
    assert "2.0 % (12.3 % without any temperature)" in text
    assert "dog, 3 of 8" in text
    assert "50.0 %" in text and "80.0 %" in text  # recall 4 of 8, precision 4 of 5
    assert "took 50 s: outside the range" in text
    assert "On 7 of 80 dev rows every member errs" in text
    assert "open it" not in text  # who reads the page has opened it


def test_pictures_show_what_was_said_and_whether_it_was_right(page, drawn):
    text = drawn(page)
    assert text.count('src="data:image/jpeg;base64,/9g="') == 2
    assert '<b class="wrong">dog</b> 90%' in text
    assert '<b class="right">cat</b> 90%' in text


def test_a_page_of_an_unfinished_study_has_what_there_is():
    page = ReportPage(study="s", made="now", answer=Answer(sentences=("No.",), commands=()), board=())
    text = page_html(page, draw_figures(page))
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Board"]
    assert "No trial has completed." in text


def test_a_report_is_replaced_whole_and_leaves_nothing_else(page, figures, tmp_path):
    path = tmp_path / "deep" / "report.html"
    write_report(path, page, figures)
    write_report(path, replace(page, study="studies/second"), figures)
    assert "<h1>second</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_half_a_character_in_a_name_does_not_stop_the_page(page, figures, tmp_path):
    write_report(tmp_path / "report.html", replace(page, study="caf\udce9"), figures)
    assert "caf\\udce9" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_all_figures_are_saved_by_name(figures, tmp_path):
    files = save_figures(tmp_path / "figures", figures)
    names = {file.stem for file in files}
    assert names == {"ladder", "sizes", "curves", "calibration"}
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == sorted(file.name for file in files)


def test_a_row_that_was_not_compared_is_never_first(page, drawn):
    best = replace(row("b", role="start", log_loss=0.4), behind=0.0, margin=0.0)
    failed = replace(row("a", role="start", log_loss=0.1), note="failed at epoch 1 of 6")
    text = drawn(replace(page, board=(failed, best)))
    assert text.index(">b<small>") < text.index(">a<small>")
    assert text.count('<tr class="first"><td class="tier">') == 1
    assert "failed at epoch 1 of 6" in text


def test_many_classes_scroll_by_themselves(page, drawn):
    rows = tuple(replace(page.classes[0], name=f"class {n}") for n in range(300))
    text = drawn(replace(page, classes=rows))
    assert 'class="scroll tall"' in text
    assert all(f">class {n}<" in text for n in range(300))


def test_a_wide_interval_does_not_drown_the_points():
    wide = replace(row("a", log_loss=0.5), high=50.0)
    low, high = loss_range([wide, row("b", log_loss=0.4)])
    assert low < 0.4
    assert 0.5 < high < 0.6


def test_a_bar_stays_on_its_scale():
    assert "left: 25.0%; width: 50.0%" in bar(1.0, 3.0, 2.0, (0.0, 4.0))
    assert "left: 0.0%; width: 100.0%" in bar(-9.0, 9.0, None, (0.0, 4.0))


def test_a_long_name_is_cut_and_whole_in_its_hint():
    assert name("x" * 60) == "x" * 60
    assert name("x" * 61) == f'<span title="{"x" * 61}">{"x" * 59}\u2026</span>'
