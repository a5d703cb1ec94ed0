"""Command lines: a wrong word is one clear line and exit code 2."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake in one line; `--help` has the rest."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and leave with exit code 2."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")
