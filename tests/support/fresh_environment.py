"""An environment that holds nothing of this one: what is installed there has the versions of requirements.lock."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parents[2] / "requirements.lock"
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


class FreshEnvironment:
    """A virtual environment in a new folder."""

    def __init__(self, folder: Path) -> None:
        self.home, self.bin = folder, folder / "venv" / "bin"
        subprocess.run([UV, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True)

    def install(self, *words: str) -> None:
        """Install what the words of `uv pip install` say."""
        command = [UV, "pip", "install", "-q", "--python", str(self.bin / "python"), "--constraint", str(LOCK), *words]
        subprocess.run(command, check=True, timeout=1200)

    def run(self, program: str, *words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, which knows no more of this one than PATH."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), **variables}
        command = [str(self.bin / program), *words]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
