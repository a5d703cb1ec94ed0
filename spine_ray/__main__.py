"""`spine-ray` and `python -m spine_ray`: all commands under one name."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

import spine_ray
from spine_ray.show.arguments import Parser

COMMANDS = {
    "search": "climb the ladder on a data set and answer with evidence",
    "check": "the checks of hour one alone: is the data, and what is made of it, fit to train on?",
    "select": "choose or edit the ensemble of a study from its stored OOF logits, in seconds",
    "predict": "what the ensemble of a study or a bundle says of new pictures, one row an image",
    "export": "the ensemble of a study as a bundle that runs without it, and as an MLflow model",
    "compare": "the MLflow UI on localhost, at the runs of a study",
    "report": "one self-contained HTML file about a study, from its files, in seconds",
}
"""What each does; its module has the same name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the words behind a command's name to the command; return its exit code, or leave with 2 if there is none."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    command = parser.parse_args(words[:1]).command
    allowed = f"the commands are {', '.join(COMMANDS)}"
    if command is None:
        parser.error(f"a command is missing; {allowed}")
    if command not in COMMANDS:
        parser.error(f"there is no command {command!r}; {allowed}")
    # Imported here, so that each command loads no more than it needs.
    run: Callable[[Sequence[str]], int] = importlib.import_module(f"spine_ray.{command}").main
    return run(words[1:])


def _parser() -> Parser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {told}" for name, told in COMMANDS.items())
    parser = Parser(
        prog="spine-ray",
        usage="%(prog)s COMMAND ...",
        description=spine_ray.__doc__,
        epilog=f"commands:\n{listed}\n\n`%(prog)s COMMAND --help` tells what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {spine_ray.__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
