"""Virtual environments for contenders whose packages do not get along with ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from schemas.errors import PrerequisiteError

CONTENDERS = Path(__file__).parent / "contenders"


def contender_python(name: str, bench: str, environments: Path, say: Callable[[str], None]) -> Path:
    """The Python of a contender with the packages of `bench/contenders/NAME.txt`; made and filled on the first call.

    Args:
        bench: the command that can do without it, for messages.

    Raises:
        PrerequisiteError: the packages cannot be installed.
    """
    requirements = CONTENDERS / f"{name}.txt"
    directory = environments / name
    python, done = directory / "bin" / "python", directory / "installed.txt"
    if done.is_file() and done.read_text() == requirements.read_text():
        return python
    say(f"installing {name} into an environment of its own")
    venv.create(directory, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        raise PrerequisiteError(
            f"{name} cannot be installed with Python {sys.version.split()[0]}: {installed.stderr.strip()[-500:]}\n"
            f"Or leave the contenders out: `slipstream bench {bench} --no-contenders`"
        )
    done.write_text(requirements.read_text())
    return python
