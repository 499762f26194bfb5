"""The processes of a training: this one alone, or one for each device, which tell this one how far they are."""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from encoder.train_config import Progress, TrainConfig
from encoder.train_loop import Stopped
from schemas.errors import ConfigError, SlipstreamError

_POLL_S = 0.2
Result = TypeVar("Result")
Tell = Callable[[Progress], None]
Stop = Callable[[], bool]


def device_of(config: TrainConfig) -> str:
    """`cpu` or `cuda`.

    Raises:
        ConfigError: there are not as many devices, or they cannot do what is asked for.
    """
    devices = torch.cuda.device_count()
    device = config.device if config.device != "auto" else "cuda" if devices else "cpu"
    if device == "cuda" and config.devices > devices:
        raise ConfigError(f"devices: {config.devices} CUDA devices asked for, and torch sees {devices} here")
    if device == "cpu" and config.precision == "16-mixed":
        raise ConfigError("precision: 16-mixed is for GPUs; on the CPU take 32-true or bf16-mixed")
    if device == "cuda" and config.precision == "bf16-mixed" and not torch.cuda.is_bf16_supported():
        raise ConfigError("precision: this GPU has no bf16; take 16-mixed or 32-true")
    return device


def launch(
    config: TrainConfig, device: str, work: Callable[[Fabric, Tell, Stop], Result], tell: Tell, stop: Stop
) -> Result:
    """Do `work` in each process of the training; several begin with a fresh interpreter, so `work` must be picklable then.

    Args:
        tell: called in this process, from another thread if there are several processes.
        stop: asked in this process, from time to time.

    Returns:
        What the first process returned.

    Raises:
        SlipstreamError, Stopped: as `work`.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    options: dict[str, Any] = {"accelerator": device, "devices": config.devices, "precision": config.precision}
    if config.devices == 1:
        fabric = Fabric(**options)
        fabric.launch()
        return work(fabric, tell, stop)
    # Without the crossing loss some weights have no gradient.
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=config.crossing_weight == 0)
    fabric = Fabric(strategy=strategy, **options)
    context = multiprocessing.get_context("spawn")
    told, stopping = context.Queue(), context.Event()
    with _relay(told, stopping, tell, stop):
        outcome = fabric.launch(functools.partial(_in_child, work, told, stopping, os.getpid()))
    if isinstance(outcome.error, BaseException):
        raise outcome.error
    result: Result = outcome.result
    return result


class _Outcome:
    """What a process came to. No dataclass: Fabric would take one apart."""

    def __init__(self, result: Any, error: BaseException | None) -> None:
        self.result, self.error = result, error


def _in_child(
    work: Callable[[Fabric, Tell, Stop], Any], told: Any, stopping: Any, parent: int, fabric: Fabric
) -> _Outcome:
    def interrupted(*_: object) -> None:
        """Ctrl-C reaches every process, and the parent asks us to stop; but this also tells that the parent is gone."""
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGINT, interrupted)
    # An error that people can mend comes up in all processes at the same step.
    try:
        return _Outcome(work(fabric, told.put, stopping.is_set), None)
    except (SlipstreamError, Stopped) as error:
        return _Outcome(None, error)


@contextlib.contextmanager
def _relay(told: Any, stopping: Any, tell: Tell, stop: Stop) -> Iterator[None]:
    ended = threading.Event()

    def relay() -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Empty):
                tell(told.get(timeout=_POLL_S))
            if stop():
                stopping.set()
        with contextlib.suppress(queue.Empty):  # what came last
            while True:
                tell(told.get(timeout=_POLL_S))

    thread = threading.Thread(target=relay, name="training-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
