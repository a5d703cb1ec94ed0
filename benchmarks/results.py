"""What all benchmark commands have in common: `--quick`, and a result that is one JSON object.

The object is the last line of standard output; everything else that a command says goes to standard error. So
`python -m benchmarks.selector > selector.json` keeps it, and `... | python -m json.tool` shows it indented.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def parse_words(
    parser: argparse.ArgumentParser,
    words: Sequence[str] | None = None,
    *,
    quick: Mapping[str, object],
    needed: Sequence[str] = (),
) -> argparse.Namespace:
    """Parse the words of a command, among them `--quick`.

    Args:
        parser: Knows the command's other options.
        words: None for those of this process.
        quick: The options' values with `--quick`, where they are not given.
        needed: Options that must be given without it.
    """
    parser.add_argument("--quick", action="store_true", help="a tiny run of seconds, to see that it works")
    words = sys.argv[1:] if words is None else words
    if "--quick" in words:
        parser.set_defaults(**quick)
    given = parser.parse_args(words)
    missing = [name for name in needed if getattr(given, name) in (None, [])]
    if missing and not given.quick:
        parser.error(f"without --quick it needs: {', '.join(missing)}")
    return given


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def print_result(found: Mapping[str, Any]) -> None:
    """Print what a command has found, as its last words."""
    print(json.dumps(found), flush=True)
