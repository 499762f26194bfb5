"""A virtual environment for Quix Streams, which needs an older confluent-kafka than we do."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from schemas.errors import PrerequisiteError

REQUIREMENTS = Path(__file__).parent / "contenders" / "quix.txt"


def quix_python(environments: Path, say: Callable[[str], None]) -> Path:
    """Its Python; made and filled on the first call.

    Raises:
        PrerequisiteError: the packages cannot be installed.
    """
    directory = environments / "quix"
    python, done = directory / "bin" / "python", directory / "installed.txt"
    if done.is_file() and done.read_text() == REQUIREMENTS.read_text():
        return python
    say("installing Quix Streams into an environment of its own")
    venv.create(directory, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        raise PrerequisiteError(
            f"Quix Streams cannot be installed with Python {sys.version.split()[0]}: {installed.stderr.strip()[-500:]}\n"
            "Or leave the contenders out: `slipstream bench stream --no-contenders`"
        )
    done.write_text(REQUIREMENTS.read_text())
    return python
