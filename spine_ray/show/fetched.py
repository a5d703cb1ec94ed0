"""What `--fetch` has gathered: a line a file, then what to type where there is no network."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from spine_ray.show.live import Progress


class File(Protocol):
    """A gathered file as it is told."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def sha256(self) -> str:
        """What it hashes to."""

    @property
    def origin(self) -> str:
        """Where it came from."""


def tell_fetched(progress: Progress, files: Iterable[File], spaces: Sequence[str], folder: Path) -> None:
    """Tell each file as it comes, and at the end how to use them."""
    count, total = 0, 0
    for file in files:
        count, total = count + 1, total + file.size
        size, digest = f"{file.size / 1e6:.1f} MB", f"sha256 {file.sha256[:16]}"
        progress.say(f"{file.path.name}  {size}  {digest}  {file.origin}")
    progress.say(f"{count} files, {total / 1e6:.1f} MB in {folder}, all of them whole. Copy the folder, and there:")
    words = " ".join(f"--space {shlex.quote(name)}" for name in spaces)
    progress.say(f"  python -m spine_ray.search {words} --weights {shlex.quote(str(folder))}")
