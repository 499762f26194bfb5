"""A way to run Kafka or Redis: what the choice (choose.py) returns and the launcher starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slipstream.stack.state import How, Part

Notify = Callable[[str], None]
Remember = Callable[[Part], None]


class Runner(Protocol):
    @property
    def how(self) -> How: ...

    @property
    def listeners(self) -> tuple[str, ...]:
        """Names of the ports that it needs; empty for an address that was given."""
        ...

    def fetch(self, notify: Notify) -> None:
        """Downloads what `launch` would download."""
        ...

    def launch(self, directory: Path, ports: Mapping[str, int], notify: Notify, remember: Remember) -> Part:
        """Starts it with its files in `directory` and returns at once: it may not answer yet.

        Calls `remember` with the part as soon as there is something to stop. Raises UnavailableError if it cannot be started.
        """
        ...


@dataclass(frozen=True)
class Given:
    """An address that somebody else looks after."""

    address: str
    how: How = How.EXTERNAL
    listeners: tuple[str, ...] = ()

    def fetch(self, notify: Notify) -> None:
        pass

    def launch(self, directory: Path, ports: Mapping[str, int], notify: Notify, remember: Remember) -> Part:
        part = Part(how=self.how, address=self.address)
        remember(part)
        return part
