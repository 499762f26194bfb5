"""What a training needs to go on after its process went away: a directory beside the checkpoint that it will write.

    state.json                 which training it is (config, fingerprint of the data), how far, what was measured
    state-<step>.safetensors   model.*, average.*, best.* weights; optimizer.*

The JSON file is written last and names the other, so a crash leaves the state before. No generator's state is kept: what is
random in a step is drawn from the seed, the process and the step's number (encoder.train_batches).
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import msgspec
from torch import Tensor

from encoder.train_config import Measured, TrainConfig
from schemas.errors import ConfigError, ContractError

NOTES = "state.json"
#: May differ from the training that is resumed: they change no step.
_FREE = ("source", "checkpoint_every_s", "device", "threads")


class TrainState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of state.json.

    Attributes:
        tensors: name of the other file.
        seconds: spent so far.
        since_best: measurements since the best one.
        scaler: of the losses (16-mixed).
    """

    format: Literal["slipstream-training-state"] = "slipstream-training-state"
    version: Literal[1] = 1
    tensors: str
    step: int
    seconds: float
    fingerprint: str
    config: dict[str, Any]
    best: Measured | None = None
    since_best: int = 0
    scaler: dict[str, float] = {}


def describe(config: TrainConfig) -> dict[str, Any]:
    """Every field of a configuration, as JSON has it."""
    # Not the object itself: msgspec leaves out what is set on the class alone, the defaults of a config that it made.
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    described: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values))
    return described


def save_state(directory: Path, state: TrainState, tensors: dict[str, Tensor]) -> None:
    """Write a state over an older one."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, directory / state.tensors)
    _sync(directory / state.tensors)
    unnamed = directory / f".{NOTES}"
    unnamed.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2))
    _sync(unnamed)
    unnamed.replace(directory / NOTES)
    for file in directory.glob("state-*.safetensors"):
        if file.name != state.tensors:
            file.unlink()


def find_state(directory: Path) -> TrainState | None:
    """The state that an earlier run left, or None.

    Raises:
        ContractError: there is one that cannot be read.
    """
    try:
        return msgspec.json.decode((directory / NOTES).read_bytes(), type=TrainState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ContractError(f"{directory / NOTES}: not a training's state ({error}): remove {directory}") from None


def load_tensors(directory: Path, state: TrainState) -> dict[str, Tensor]:
    """
    Raises:
        ContractError: they cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(directory / state.tensors)
    except (OSError, SafetensorError) as error:
        raise ContractError(f"{directory / state.tensors}: damaged ({error}): remove {directory}") from None


def require_same(state: TrainState, config: TrainConfig, fingerprint: str, directory: Path) -> None:
    """
    Raises:
        ConfigError: the state is of another training; the message names every field that differs.
    """
    ours = describe(config)
    names = [field.name for field in fields(config) if field.name not in _FREE]
    wrong = [
        f"{name} is {ours[name]!r}, there it is {state.config.get(name)!r}"
        for name in names
        if ours[name] != state.config.get(name)
    ]
    if fingerprint != state.fingerprint:
        wrong.append(f"the log's fingerprint is {fingerprint}, there it is {state.fingerprint}")
    if wrong:
        raise ConfigError(
            f"{directory}: a training stopped at step {state.step} and is another one: {'; '.join(wrong)}. Resume it as it was "
            f"begun, or remove {directory}"
        )


def remove_state(directory: Path) -> None:
    """The training is done."""
    (directory / NOTES).unlink(missing_ok=True)
    for file in directory.glob("state-*.safetensors"):
        file.unlink()
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
