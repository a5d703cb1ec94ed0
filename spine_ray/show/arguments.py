"""Command lines: a wrong word is one clear line and exit code 2."""

import argparse
import sys
from typing import NoReturn

from spine_ray.show.words import one_line


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake in one line; `--help` has the rest."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and leave with exit code 2."""
        self.exit(2, f"error: {one_line(message)} (see {self.prog} --help)\n")


def print_error(error: BaseException) -> None:
    """Say in one line, on the error stream, what was wrong."""
    sys.stderr.write(f"error: {one_line(str(error))}\n")
