"""`make lint` asks of the dependencies: is each pinned, is its licence compatible with ours, is a weakness of it known?

Of those that the project needs with the given extras; other packages in the environment are nobody's business. Known weaknesses
are looked up by pip-audit at PyPI, whose JSON API a mirror or a machine without a network does not have: then this says so, and
goes on.

Run: python -m tools.audit cpu,train,dev
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "slipstream-embeddings"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_LOOK_UP_S = 60
#: Compatible with Apache 2.0 for a dependency that is used as it comes. MPL 2.0 binds changes of its own files alone.
_COMPATIBLE = re.compile(
    r"MIT|BSD|ISC|Apache|PSF|Python Software Foundation|MPL|Mozilla|Zlib|CC0|BSL-1|Repoze|DFSG approved", re.IGNORECASE
)
#: NVIDIA's redistributable libraries come with torch and onnxruntime-gpu under NVIDIA's own terms; we ship none of them.
_NOT_OURS_TO_SHIP = re.compile(r"(nvidia|cuda|tensorrt)-")
#: What metadata does not say, read in the package's licence file.
_READ = {"promql-parser": "MIT"}
#: pip itself needs them, and `pip freeze` leaves them out.
_INSTALLERS = {"pip", "setuptools", "wheel"}


def dependencies(project: str, extras: Iterable[str]) -> set[str]:
    """Canonical names of what the project needs with these extras, and what that needs."""
    found: set[str] = set()
    waiting = [(project, extra) for extra in ("", *extras)]
    asked = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        found.add(canonicalize_name(name))
        for needed in map(Requirement, metadata.requires(name) or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                more = {(needed.name, its_extra) for its_extra in ("", *needed.extras)} - asked
                asked |= more
                waiting += more
    return found - _INSTALLERS - {canonicalize_name(project)}


def unpinned(needed: Iterable[str], constraints: str) -> list[str]:
    """Dependencies that are not in the constraints, or are installed in another version."""
    pins = dict(line.split("==") for line in constraints.splitlines() if line and not line.startswith("#"))
    pinned: dict[str, str] = {canonicalize_name(name): version for name, version in pins.items()}
    installed = {name: metadata.version(name) for name in needed}
    return [
        f"{name} {version}: {f'constraints.txt says {pinned[name]}' if name in pinned else 'not in constraints.txt'}"
        for name, version in sorted(installed.items())
        if pinned.get(name) != version
    ]


def incompatible(licences: Mapping[str, str]) -> list[str]:
    """Packages of which some part has a licence that is not known to be compatible with Apache 2.0."""
    return [
        f"{name}: {licence}"
        for name, licence in sorted(licences.items())
        if not _NOT_OURS_TO_SHIP.match(name)
        and not all(_COMPATIBLE.search(part) for part in re.split(r"\bAND\b|;", _READ.get(name, licence)))
    ]


def known_weaknesses(report: Mapping[str, Any]) -> tuple[list[str], int]:
    """From pip-audit's report: what is wrong, and how many packages nothing was said of."""
    rows = report["dependencies"]
    wrong = [
        f"{row['name']} {row['version']}: {weakness['id']}, fixed in {', '.join(weakness['fix_versions']) or 'no version'}"
        for row in rows
        for weakness in row.get("vulns", [])
    ]
    return wrong, sum("skip_reason" in row for row in rows)


def look_up(constraints: Path) -> Mapping[str, Any] | None:
    """pip-audit's report; None if PyPI cannot be asked."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "pypi", "--requirement", str(constraints)]
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    try:
        done = subprocess.run([*command, *options], capture_output=True, timeout=_LOOK_UP_S, check=False)
        report: Mapping[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None
    return report


def licences_of(names: Iterable[str]) -> Mapping[str, str]:
    """By canonical name, as pip-licenses reads them."""
    command = [
        sys.executable,
        "-m",
        "piplicenses",
        "--format",
        "json",
        "--from",
        "mixed",
        "--with-system",
        "--packages",
        *names,
    ]
    rows = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {canonicalize_name(row["Name"]): row["License"] for row in rows}


def main(extras: str) -> int:
    try:
        needed = dependencies(PROJECT, extras.split(","))
    except metadata.PackageNotFoundError as missing:
        print(
            f"audit: {missing.name} is not installed: `make setup` installs what the extras {extras} need",
            file=sys.stderr,
        )
        return 1
    wrong = {
        "not pinned": unpinned(needed, CONSTRAINTS.read_text()),
        "licence to look at": incompatible(licences_of(sorted(needed))),
    }
    report, asked = look_up(CONSTRAINTS), 0
    if report is not None:
        wrong["known weakness"], unasked = known_weaknesses(report)
        asked = len(report["dependencies"]) - unasked
    for what, lines in wrong.items():
        for line in lines:
            print(f"audit: {what}: {line}", file=sys.stderr)
    known = f"of {asked} looked up" if asked else "NOT looked up, since PyPI's JSON API does not answer here"
    print(f"audit: {len(needed)} dependencies: pins and licences checked, known weaknesses {known}", file=sys.stderr)
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
