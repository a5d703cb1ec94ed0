import io

from rich.console import Console

from spine_ray.data.findings import Audit, Finding, Level
from spine_ray.show.audit_table import print_audit


def finding(level: Level, kind: str, *rows: str) -> Finding:
    return Finding(level=level, kind=kind, message=f"{kind} was found", rows=rows)


def printed(*findings: Finding) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    print_audit(console, Audit(findings=findings), {"aa": "cats/1.png", "bb": "cats/2.png"}, ("out/audit.json",))
    return console.export_text()


def test_errors_come_first_and_rows_are_named_by_their_paths() -> None:
    text = printed(finding("fact", "counts"), finding("warning", "duplicates", "aa", "bb", "cut.png", "dd", "ee"))
    assert text.index("duplicates") < text.index("counts")
    assert "cats/1.png, cats/2.png, cut.png and 2 more" in text
    assert "1 warning and no error: training can begin; read the warnings first." in text
    assert "out/audit.json" in text


def test_names_of_classes_and_files_command_no_terminal() -> None:
    evil = "\x1b[2J\nerror: \u202eall is lost"
    found = Finding(level="warning", kind="small_class", message=f"too few: {evil}", rows=("aa",))
    console = Console(width=100, record=True, file=io.StringIO())
    print_audit(console, Audit(findings=(found,)), {"aa": evil}, ())
    text = console.export_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert text.count(r"\x1b[2J\nerror: \u202eall is lost") == 2


def test_the_last_line_says_what_to_do() -> None:
    assert "1 error: mend the data before anything is trained on it." in printed(finding("error", "unreadable", "x"))
    assert "No error and no warning: training can begin." in printed(finding("fact", "counts"))
    assert "2 errors" in printed(finding("error", "unreadable"), finding("error", "augmentation"))
