"""What a bundle's graphs are opened with on each rung of the ladder: which form of them, and which options of the provider."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from encoder.buckets import Profile
from encoder.bundle import Bundle
from encoder.providers import Opening, import_onnxruntime
from schemas.bundle import ModelShape
from schemas.errors import PrerequisiteError


def openings(
    bundle: Bundle,
    profiles: Mapping[str, Profile],
    half_on: Callable[[str], bool],
    captures_on: Callable[[str], bool],
    cache_dir: Path | None,
    rung: str,
) -> dict[str, Opening]:
    """What to open on a rung: the bundle's own files, or the fp16 form built from them.

    Raises:
        PrerequisiteError: the fp16 form is wanted, but the package `onnx` that builds it is not there.
        BundleError: the graphs are not of this build.
    """
    made: dict[str, Path | bytes] = {name: bundle.graph(name) for name in profiles}
    if half_on(rung):
        made |= half_graphs(bundle, tuple(profiles))
    opened = {}
    for name, graph in made.items():
        options: dict[str, Mapping[str, str]] = {"cuda": cuda_options(captures_on(rung))}
        if rung == "tensorrt":
            content = graph if isinstance(graph, bytes) else graph.read_bytes()
            directory = cache_dir or _cache_dir()
            directory.mkdir(parents=True, exist_ok=True)
            prefix = engine_prefix(bundle.model_id, name, content)
            options["tensorrt"] = tensorrt_options(profiles[name], prefix, directory, half_on(rung))
        opened[name] = Opening(graph, options)
    return opened


def half_graphs(bundle: Bundle, names: tuple[str, ...]) -> dict[str, bytes]:
    """The fp16 form of a bundle's graphs, as ONNX."""
    try:
        from encoder.graph_weights import read_weights
        from encoder.graphs import build_append, build_cross, build_encode
    except ImportError as error:
        raise PrerequisiteError(
            f"fp16 graphs cannot be built ({error}): pip install 'slipstream-embeddings[gpu]', or set the precision fp32"
        ) from None
    shape: ModelShape = bundle.shape
    weights = read_weights(shape, bundle.graph("encode"), bundle.graph("cross") if "cross" in names else None)
    builders = {"encode": build_encode, "append": build_append, "cross": build_cross}
    return {name: builders[name](weights, shape, half=True).SerializeToString(deterministic=True) for name in names}


def cuda_options(captures: bool) -> dict[str, str]:
    """The arena grows by what is asked for, not to the next power of two; products of f32 are f32."""
    return {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0", "enable_cuda_graph": str(int(captures))}


def tensorrt_options(profile: Profile, prefix: str, cache_dir: Path, half: bool) -> dict[str, str]:
    """One engine for the whole range of shapes, built when the session is, kept for the next start."""
    least, typical, most = map(profile.shapes, profile.extremes())
    return {
        "trt_fp16_enable": str(int(half)),
        "trt_profile_min_shapes": _shapes(least),
        "trt_profile_opt_shapes": _shapes(typical),
        "trt_profile_max_shapes": _shapes(most),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache_dir),
        "trt_engine_cache_prefix": prefix,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache_dir),
    }


def engine_prefix(model_id: str, graph: str, content: bytes) -> str:
    """TensorRT's own key knows names and shapes, not weights; and engines fit the version alone that built them."""
    versions = f"ort{import_onnxruntime().__version__}-trt{_tensorrt_version()}"
    return f"slipstream-{model_id}-{graph}-{sha256(content).hexdigest()[:12]}-{versions}"


def _tensorrt_version() -> str:
    for package in ("tensorrt-cu13", "tensorrt"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "none"


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, size))}" for name, size in shapes.items())


def _cache_dir() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "slipstream" / "tensorrt"
