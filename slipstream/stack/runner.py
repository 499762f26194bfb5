"""A way to run Kafka or Redis: what the choice (choose.py) returns and the launcher starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slipstream.stack.state import How, Part

Notify = Callable[[str], None]


class Runner(Protocol):
    @property
    def how(self) -> How: ...

    @property
    def listeners(self) -> tuple[str, ...]:
        """Names of the ports that it needs; empty for an address that was given."""
        ...

    def launch(self, directory: Path, ports: Mapping[str, int], notify: Notify) -> Part:
        """Starts it with its files in `directory` and returns at once: it may not answer yet."""
        ...


@dataclass(frozen=True)
class Given:
    """An address that somebody else looks after."""

    address: str
    how: How = How.EXTERNAL
    listeners: tuple[str, ...] = ()

    def launch(self, directory: Path, ports: Mapping[str, int], notify: Notify) -> Part:
        return Part(how=self.how, address=self.address)
