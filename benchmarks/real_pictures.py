"""A search beside frozen features with a logistic regression, on the same pictures: who is better after how long?

    python -m benchmarks.real_pictures FOLDER --rows 300 1000 --draws 0 1 2 --budgets 1.3m+40 4m > marks.json
    python -m benchmarks.real_pictures FOLDER --rows 1000 --draws 0 1 2 --budgets 60 120 300 600 > ladder.json

FOLDER holds one table of pictures, FOLDER/SET/table.csv (`path` relative to the table, `label`, `group`), and
FOLDER/weights/BACKBONE.safetensors. Every draw takes whole groups to learn from and others to judge on. Then follow, as
processes, the mark (`benchmarks.frozen_features`) and a search for every budget, each with an empty cache; judged is
what `predict` writes of the judge rows. In a budget `m` stands for the mark's seconds. Without budgets only the mark
runs.

The search has a test split of its own. So that both learn from the same rows it consists of further ones
(`--test-rows`), or, with `--test-share`, of a share of the drawn ones, as for who has no others. Differences are of the
judge log-loss, nats: below 0 the first is better. Intervals (95 %) hold over groups of judge rows. A search without an
answer has its exit code and no figures. Nothing else may run beside it.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.budgets import Budget
from benchmarks.draw_report import DrawRuns, summary
from benchmarks.frozen_features import LITES
from benchmarks.generated_pictures import BACKBONES, WEIGHTS, write_pictures
from benchmarks.picture_table import PictureTable, draw_rows, read_table
from benchmarks.results import parse_words, print_result, say
from benchmarks.search_runs import Files, Setting, run_mark, run_search

QUICK: Mapping[str, object] = {
    "rows": [72],
    "judge_rows": 36,
    "test_rows": 12,
    "draws": [0],
    "budgets": [Budget.parse("40")],
    "backbones": list(BACKBONES),
    "px": [32],
    "freezes": [1.0],
    "folds": 2,
    "search_words": "--workers 0 --set trials=2 --set recipe.epochs=1",
}
QUICK_PICTURES = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How many rows of a table are drawn."""

    rows: int
    """To learn from."""
    test: int
    """For the search's test split."""
    judge: int


def main(words: Sequence[str] | None = None) -> None:
    """Run all draws and print what came of them."""
    args = parse_words(_parser(), words, quick=QUICK, needed=("folder",))
    with ExitStack() as stack:
        folder = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.folder is None:
            file, weights = write_pictures(folder / "pictures", QUICK_PICTURES, 0), WEIGHTS
        else:
            file, weights = find_table(args.folder), args.folder / "weights"
        setting = Setting(
            pictures=file.absolute().parent,
            weights=weights.absolute(),
            backbones=tuple(args.backbones),
            sizes=tuple(args.px),
            freezes=tuple(args.freezes),
            folds=args.folds,
            test_share=args.test_share,
            search_words=args.search_words,
        )
        table, runs = read_table(file), []
        for rows in args.rows:
            sizes = Sizes(rows=rows, test=0 if args.test_share else args.test_rows, judge=args.judge_rows)
            runs += [run_draw(folder.absolute(), table, sizes, seed, setting, args.budgets) for seed in args.draws]
    print_result(
        {
            "set": file.parent.name,
            "backbones": list(setting.backbones),
            "px": list(setting.sizes),
            "freezes": list(setting.freezes),
            "folds": setting.folds,
            "test_share": setting.test_share,
            "search_words": setting.search_words,
            "cores": os.cpu_count(),
            "runs": [run.plain() for run in runs],
            "summary": summary(runs),
        }
    )


def run_draw(
    folder: Path, table: PictureTable, sizes: Sizes, seed: int, setting: Setting, budgets: Sequence[Budget]
) -> DrawRuns:
    """Run both sides on one draw, the mark first: its seconds may decide the budgets.

    Args:
        folder: Where a folder of this draw's own is made.
        table: What is drawn from.
        sizes: How many rows.
        seed: Of the draw.
        setting: What all runs have in common.
        budgets: Of the searches.
    """
    draw = draw_rows(table, study=sizes.rows, test=sizes.test, judge=sizes.judge, seed=seed)
    files = Files.write(folder / f"rows-{sizes.rows}-draw-{seed}", table, draw, setting)
    where = f"{len(draw.study)} rows, draw {seed}"
    mark = run_mark(files, setting)
    say(f"{where}: mark {mark.seconds:.1f} s, {mark.judged.summary()} on {len(draw.judge)} rows")
    searches = []
    for budget in budgets:
        search = run_search(files, setting, budget.text, budget.seconds(mark.seconds))
        answer = search.last_words if search.judged is None else search.judged.summary()
        outcome = f"exit code {search.exit_code}, {search.completed} trials, {len(search.members)} members, {answer}"
        say(f"{where}: search of {search.budget_s:.0f} s took {search.seconds:.1f} s: {outcome}")
        searches.append(search)
    return DrawRuns(rows=sizes.rows, seed=seed, draw=draw, judge=files.judge_table, mark=mark, searches=tuple(searches))


def find_table(folder: Path) -> Path:
    """Return the one table of pictures of a folder.

    Raises:
        ValueError: If there is none, or several.
    """
    files = sorted(folder.glob("*/table.csv"))
    if len(files) != 1:
        raise ValueError(f"{folder} must hold one SET/table.csv, not {len(files)}")
    return files[0]


def _budget(text: str) -> Budget:
    try:
        return Budget.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="pictures and weights")
    parser.add_argument("--rows", nargs="+", type=int, default=[300], help="rows to learn from")
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--judge-rows", type=int, default=2000, help="rows to judge on, at most")
    parser.add_argument("--test-rows", type=int, default=45, help="further rows for the search's test split")
    parser.add_argument("--test-share", type=float, help="of the drawn rows instead, above 0 and at most 0.5")
    parser.add_argument("--budgets", nargs="*", type=_budget, default=[], help="such as 1.3m+40, 4m or 600")
    parser.add_argument("--backbones", nargs="+", default=list(LITES), metavar="NAME")
    parser.add_argument("--px", nargs="+", type=int, default=[64, 96], help="sides of the square input")
    parser.add_argument("--freezes", nargs="+", type=float, default=[0.0, 1.0], help="depths that the search may try")
    parser.add_argument("--folds", type=int, default=5, help="of the search")
    parser.add_argument("--search-words", default="", help="further words for the search, in one string")
    parser.add_argument("--work", type=Path, help="an empty folder to keep everything in; default: a temporary one")
    return parser


if __name__ == "__main__":
    main()
