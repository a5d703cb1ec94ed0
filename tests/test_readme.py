"""What the README shows from Python runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_example_from_python_runs(shipped_study, capsys) -> None:
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "open_study" in code]
    code = example.replace('"STUDY"', repr(str(shipped_study.root))).replace(
        '"FOLDER"', repr(str(shipped_study.pictures))
    )
    exec(compile(code, "README.md", "exec"), {})
    told = capsys.readouterr().out
    assert "log_loss" in told
    assert "disagreement" in told
