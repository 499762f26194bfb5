"""What every command needs: the settings, the addresses, a console for people and one line of JSON for programs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console

from edge.log_lines import LogConfig, start_logging
from schemas.errors import BundleError, ConfigError, PrerequisiteError
from slipstream.settings import Settings, load_settings
from slipstream.stack import current

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

STACK_HINT = "run `slipstream up`, or set SLIPSTREAM_KAFKA_BOOTSTRAP and SLIPSTREAM_REDIS_URL"


@dataclass(frozen=True)
class Context:
    """One invocation. Settings are read when a command first asks for them, so that `--help` never fails on them."""

    config: Path | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    #: For people: stderr, so that stdout can be piped.
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.config, self.flags)

    @property
    def kafka_bootstrap(self) -> str:
        """The address of the settings, else of the local stack in the data directory."""
        if self.settings.kafka_bootstrap:
            return self.settings.kafka_bootstrap
        stack = current(self.settings.data_dir)
        if stack is None:
            raise ConfigError(f"no Kafka address, and no local stack runs in {self.settings.data_dir}: {STACK_HINT}")
        return stack.kafka_bootstrap

    @property
    def redis_url(self) -> str:
        """The URL of the settings, which may hold a password, else of the local stack in the data directory."""
        if self.settings.redis_url:
            return self.settings.redis_url.get_secret_value()
        stack = current(self.settings.data_dir)
        if stack is None:
            raise ConfigError(f"no Redis URL, and no local stack runs in {self.settings.data_dir}: {STACK_HINT}")
        return stack.redis_url

    @property
    def bundle_dir(self) -> Path:
        path = self.settings.bundle_dir
        if not path.is_dir():
            raise BundleError(
                f"no model bundle at {path}: make one with `slipstream train LOG`, or set SLIPSTREAM_BUNDLE"
            )
        return path

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def emit(self, value: Any) -> None:
        """Print one line of JSON on stdout."""
        print(msgspec.json.encode(value).decode(), flush=True)

    def log_to_stderr(self, stage: str) -> None:
        """What a stage logs, from here on."""
        of = self.settings
        start_logging(LogConfig(stage, of.log_level, of.log_format, of.log_user_data))


def context(command: typer.Context) -> Context:
    found = command.find_object(Context)
    assert found is not None
    return found


@contextlib.contextmanager
def interrupt_once() -> Iterator[None]:
    """The first SIGINT or SIGTERM raises KeyboardInterrupt; later ones are ignored, so that cleaning up is not cut short.

    Ctrl-C under make arrives twice: from the terminal and from make.
    """

    def interrupted(*_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupted) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def make_room_for(file: Path) -> None:
    """Check that a file can be written, and make its directory: before the minutes that its content takes.

    Raises:
        ConfigError: it cannot.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab"):
            pass
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror}): name another file") from None


@contextlib.contextmanager
def needs_extra(extra: str, command: str) -> Iterator[None]:
    """Turns a missing package into a message that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("schemas", "stream", "encoder", "ranker", "slipstream"):
            raise
        raise PrerequisiteError(
            f"`{command}` needs the package {error.name}: pip install 'slipstream-embeddings[{extra}]'"
        ) from None
