"""Opening ONNX Runtime sessions on the execution provider that was asked for, and on no other.

ONNX Runtime itself falls back without an error: a missing CUDA library gives a session on the CPU, tens of times slower, that
nobody notices. So here each rung of the ladder is tried with fallback off, and what a session says of itself is compared.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from schemas.errors import BundleError, ConfigError, PrerequisiteError, ProviderError

_log = logging.getLogger(__name__)

#: Rungs, best first, by the names that settings use.
LADDER = ("tensorrt", "cuda", "cpu")
_ORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_EXTRAS = {
    "tensorrt": "slipstream-embeddings[tensorrt]",
    "cuda": "slipstream-embeddings[gpu]",
    "cpu": "slipstream-embeddings[cpu]",
}
#: Fusions that change bits, and that happen in one graph but not in another that computes the same.
_DISABLED_OPTIMIZERS = ["SkipLayerNormFusion"]


@dataclass(frozen=True)
class ProviderConfig:
    """
    Attributes:
        providers: rungs to try, in order.
        require_provider: refuse to start on anything lower, although `providers` would allow it.
        threads: threads of one session.
    """

    providers: tuple[str, ...] = ("cpu",)
    require_provider: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        named = (*self.providers, *([self.require_provider] if self.require_provider else []))
        unknown = [name for name in named if name not in LADDER]
        if unknown or not self.providers:
            raise ConfigError(f"providers: {unknown or 'none named'}: choose from {', '.join(LADDER)}")
        if self.require_provider and self.require_provider not in self.providers:
            raise ConfigError(
                f"require_provider {self.require_provider!r} is not among the providers to try, {', '.join(self.providers)}"
            )
        if self.threads < 1:
            raise ConfigError(f"threads: {self.threads} is not a number of threads: 1 or more")


def import_onnxruntime() -> ModuleType:
    """ONNX Runtime, which reports nothing to its maker unless the environment asks for that by itself.

    Raises:
        PrerequisiteError: no ONNX Runtime is installed, or its libraries do not load.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise PrerequisiteError(
            f"ONNX Runtime cannot be imported ({error}): install exactly one of pip install '{_EXTRAS['cpu']}' and "
            f"pip install '{_EXTRAS['cuda']}' (with both, neither works: uninstall them first)"
        ) from None


@dataclass(frozen=True)
class Opening:
    """
    Attributes:
        graph: a file, or its content.
        options: ONNX Runtime's provider options of the rung and of those below it, which take the nodes that it cannot run.
    """

    graph: Path | bytes
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def open_sessions(
    openings: Callable[[str], Mapping[str, Opening]], config: ProviderConfig
) -> tuple[dict[str, Any], str]:
    """Open graphs, all on the first rung that runs every one of them.

    Args:
        openings: what to open on a rung, by graph.

    Returns:
        Sessions by graph, and the rung that they run on.

    Raises:
        ProviderError: no rung works that is at least as high as `require_provider`.
        BundleError: a graph itself does not load.
    """
    ort = import_onnxruntime()
    reasons = []
    for rung in config.providers:
        if config.require_provider and LADDER.index(rung) > LADDER.index(config.require_provider):
            continue
        try:
            sessions = _sessions(ort, openings, rung, config.threads)
        except _RungError as error:
            reasons.append(f"{rung}: {error}; pip install '{_EXTRAS[rung]}'")
        else:
            if reasons:
                _log.warning("running on %s; not on %s", rung, ". Not on ".join(reasons))
            return sessions, rung
    wanted = config.require_provider or " or ".join(config.providers)
    raise ProviderError(f"{wanted} is required, but does not run here. {'. '.join(reasons)}")


def why_not(rung: str, graph: bytes) -> str:
    """Why a rung does not open this graph here, "" if it does.

    Raises:
        PrerequisiteError, BundleError: as `open_sessions`.
    """
    try:
        _sessions(import_onnxruntime(), lambda _: {"graph": Opening(graph)}, rung, threads=1)
    except _RungError as error:
        return str(error)
    return ""


class _RungError(Exception):
    """Why a rung cannot be used."""


def placement(session: Any) -> dict[str, int]:
    """How many nodes of a session's graph each provider runs: by rung, the provider's own name if it is none."""
    rungs = {name: rung for rung, name in _ORT_NAMES.items()}
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[rungs.get(part.ep_name, part.ep_name)] += len(part.get_nodes())
    return dict(nodes)


def _sessions(
    ort: ModuleType, openings: Callable[[str], Mapping[str, Opening]], rung: str, threads: int
) -> dict[str, Any]:
    if _ORT_NAMES[rung] not in ort.get_available_providers():
        raise _RungError(f"this ONNX Runtime ({ort.__version__}) was built without it")
    return {name: _open(ort, name, opening, rung, threads) for name, opening in openings(rung).items()}


def _open(ort: ModuleType, name: str, opening: Opening, rung: str, threads: int) -> Any:
    rungs = LADDER[LADDER.index(rung) :]  # nodes that a rung cannot run go to those below
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = threads
    session_options.inter_op_num_threads = 1
    # Spinning threads starve the other stages of the machine.
    session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Patterns are kept per shape: with ragged batches they cost memory and seldom hit.
    session_options.enable_mem_pattern = False
    session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session_options.log_severity_level = (
        3 if rung == "cpu" else 4
    )  # 3: errors; above the CPU, failures are what we look for
    if rung == "tensorrt":
        # Its wheel loads its libraries when it is imported; ONNX Runtime loads those of CUDA and cuDNN only.
        with suppress(ImportError, OSError):
            importlib.import_module("tensorrt")
    if rung != "cpu":
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(
            opening.graph if isinstance(opening.graph, bytes) else str(opening.graph),
            session_options,
            providers=[_ORT_NAMES[name] for name in rungs],
            provider_options=[dict(opening.options.get(name, {})) for name in rungs],
            disabled_optimizers=_DISABLED_OPTIMIZERS,
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        if rung == "cpu":
            where = name if isinstance(opening.graph, bytes) else opening.graph
            raise BundleError(f"{where}: ONNX Runtime {ort.__version__} does not load it: {error}") from None
        raise _RungError(_first_line(error)) from None
    session.disable_fallback()
    first = session.get_providers()[0]
    if first != _ORT_NAMES[rung]:
        raise _RungError(f"the session came up on {first} instead: a library is missing or too old")
    return session


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
