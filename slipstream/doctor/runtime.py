"""What this machine runs models on, and why: ONNX Runtime, the ladder of execution providers, libraries, threads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from encoder.providers import LADDER, Opening, import_onnxruntime, open_sessions, why_not
from encoder.runtime import RuntimeConfig
from schemas.errors import SlipstreamError
from slipstream.doctor.finding import Finding, Level

INSTALLED, PROVIDER, THREADS = "onnxruntime", "provider", "threads"
CHECKS = (INSTALLED, PROVIDER, THREADS)
_WHEELS = ("onnxruntime", "onnxruntime-gpu")
_LIBRARIES = re.compile(r"tensorrt|nvidia-(cu|cuda)")
_DRIVER = Path("/proc/driver/nvidia/version")
#: y = x x, of 2 by 2 numbers, as ONNX (IR 8, opset 17): what any provider runs.
PRODUCT = (
    b'\x08\x08:@\n\x11\n\x01x\n\x01x\x12\x01y"\x06MatMul\x12\x01gZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x02'
    b"\n\x02\x08\x02b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x02\n\x02\x08\x02B\x04\n\x00\x10\x11"
)


class RuntimeFacts(NamedTuple):
    """
    Attributes:
        packages: versions of ONNX Runtime's wheels and of NVIDIA's libraries, as pip knows them.
        rungs: why a rung of the ladder does not run here, "" if it does; empty if there is no ONNX Runtime.
        runs_on: the rung that the settings lead to, or why to none.
        driver: version of NVIDIA's driver; "" if there is none.
    """

    packages: Mapping[str, str]
    rungs: Mapping[str, str]
    runs_on: str | SlipstreamError
    driver: str
    cores: int


def runtime_findings(config: RuntimeConfig) -> Iterator[Finding]:
    """A finding for each of CHECKS, in their order."""
    facts = gather(config)
    yield judge_installed(facts)
    yield judge_provider(facts, config)
    yield judge_threads(facts, config.threads)


def gather(config: RuntimeConfig) -> RuntimeFacts:
    packages = {
        name: found.version
        for found in distributions()
        if (name := str(found.metadata["Name"]).lower()) in _WHEELS or _LIBRARIES.match(name)
    }
    rungs: dict[str, str] = {}
    runs_on: str | SlipstreamError
    try:
        import_onnxruntime()
        rungs |= {rung: why_not(rung, PRODUCT) for rung in LADDER}
        _, runs_on = open_sessions(lambda _: {"product": Opening(PRODUCT)}, config)
    except SlipstreamError as error:
        runs_on = error
    driver = driver_version(_DRIVER.read_text()) if _DRIVER.is_file() else ""
    return RuntimeFacts(packages, rungs, runs_on, driver, os.cpu_count() or 1)


def driver_version(text: str) -> str:
    """Of what NVIDIA's kernel module says: `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release ...`."""
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", text)
    return found[1] if found else "unknown"


def judge_installed(facts: RuntimeFacts) -> Finding:
    wheels = [f"{name} {facts.packages[name]}" for name in _WHEELS if name in facts.packages]
    details = {"packages": dict(facts.packages), "driver": facts.driver or None}
    if len(wheels) > 1:
        advice = (
            "they own the same directory, and the second one broke the first: pip uninstall both, then install one of "
            "slipstream-embeddings[cpu] and slipstream-embeddings[gpu]"
        )
        return Finding(INSTALLED, Level.FAIL, f"both {' and '.join(wheels)} are installed", advice, details)
    if not facts.rungs:
        return Finding(INSTALLED, Level.FAIL, str(facts.runs_on), details=details)
    found = wheels[0] if wheels else "one that pip knows nothing of"
    found += f"; NVIDIA driver {facts.driver}" if facts.driver else "; no NVIDIA driver"
    if _WHEELS[1] in facts.packages:
        libraries = [f"{name} {version}" for name, version in facts.packages.items() if name not in _WHEELS]
        found += f"; libraries of pip: {', '.join(sorted(libraries)) or 'none'}"
    return Finding(INSTALLED, Level.OK, found, details=details)


def judge_provider(facts: RuntimeFacts, config: RuntimeConfig) -> Finding:
    asked = f"`providers` {', '.join(config.providers)}" + (
        f", `require_provider` {config.require_provider}" if config.require_provider else ""
    )
    details = {"providers": config.providers, "require_provider": config.require_provider, "why_not": dict(facts.rungs)}
    if isinstance(facts.runs_on, SlipstreamError):
        advice = f"({asked}) install what is missing, or allow `cpu` in `providers` and leave out `require_provider`"
        return Finding(PROVIDER, Level.FAIL, str(facts.runs_on), advice, details)
    precision = "fp16" if config.half_on(facts.runs_on) else "fp32"
    details |= {"runs_on": facts.runs_on, "precision": precision}
    found = f"{facts.runs_on} in {precision}, by {asked}"
    if facts.runs_on != (first := config.providers[0]):
        advice = f"{first} is not here: {facts.rungs[first]}; with `require_provider` {first} no stage starts like that"
        return Finding(PROVIDER, Level.WARN, f"only {found}", advice, details)
    above = LADDER[: LADDER.index(facts.runs_on)]
    if better := [rung for rung in above if not facts.rungs[rung]]:
        advice = f'{better[0]} runs here too, and is faster: SLIPSTREAM_PROVIDERS=\'["{better[0]}", "cpu"]\''
        return Finding(PROVIDER, Level.WARN, found, advice, details)
    absent = "".join(f"; no {rung}: {facts.rungs[rung]}" for rung in above)
    return Finding(PROVIDER, Level.OK, found + absent, details=details)


def judge_threads(facts: RuntimeFacts, threads: int) -> Finding:
    found = f"{threads} for each session, on {facts.cores} cores"
    details = {"threads": threads, "cores": facts.cores}
    if threads > facts.cores:
        return Finding(THREADS, Level.WARN, found, "more `threads` than cores wait for each other", details)
    return Finding(THREADS, Level.OK, found, details=details)
