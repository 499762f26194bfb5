"""A deadline for a whole call of redis-py's blocking client: connecting, handshake, retries, every piece of the answer together.

redis-py has a time limit for each wait on its socket, so a Redis that sends a piece now and then keeps a call for many of them,
as does a connection that must be made anew. Here each wait may take what is left of the call. (The asyncio reader needs none of
this: asyncio.timeout ends a call wherever it is.) Not bounded: the resolver's look-up of a host name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.connection import AbstractConnection, Connection, ConnectionPool


class Deadline(threading.local):
    """When the call of each thread must have ended."""

    def __init__(self, limit_s: float) -> None:
        """
        Args:
            limit_s: of a call; and of a single wait outside of one.
        """
        self.limit_s = limit_s
        self._ends_s: float | None = None

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call of this thread."""
        self._ends_s = time.monotonic() + self.limit_s
        try:
            yield
        finally:
            self._ends_s = None

    @property
    def left_s(self) -> float:
        """What is left of the call; not positive once it should have ended."""
        return self.limit_s if self._ends_s is None else self._ends_s - time.monotonic()


class BoundedPool(ConnectionPool):
    """Connections whose waits end with the call."""

    def __init__(
        self, deadline: Deadline, connection_class: type[AbstractConnection] = Connection, **kwargs: Any
    ) -> None:
        super().__init__(connection_class=_bounded(connection_class), deadline=deadline, **kwargs)


def _bounded(connection_class: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection (TCP, TLS, Unix socket), bounded."""
    return type(f"Bounded{connection_class.__name__}", (_Bounded, connection_class), {})


class _Bounded:
    """Before a connection class of redis-py: gives it sockets that know the deadline."""

    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        self._deadline = deadline
        super().__init__(*args, **kwargs)

    @property
    def socket_timeout(self) -> float:
        """What redis-py sets before it connects, for each of a host's addresses, and before a TLS handshake."""
        return max(0.001, self._deadline.left_s)

    @socket_timeout.setter
    def socket_timeout(self, _: float | None) -> None:
        pass

    socket_connect_timeout = socket_timeout

    def _connect(self) -> Any:
        return _Socket(super()._connect(), self._deadline)  # type: ignore[misc]


class _Socket:
    """A socket that waits no longer than the call may."""

    def __init__(self, socket: Any, deadline: Deadline) -> None:
        self._socket, self._deadline = socket, deadline
        self._only_looks = False

    def settimeout(self, seconds: float | None) -> None:
        """Of what redis-py asks for only 0 counts: it looks whether something is there (before redis-py 8)."""
        self._only_looks = seconds == 0

    def recv(self, *args: Any) -> Any:
        self._limit()
        return self._socket.recv(*args)

    def recv_into(self, *args: Any) -> Any:
        self._limit()
        return self._socket.recv_into(*args)

    def sendall(self, *args: Any) -> Any:
        self._limit()
        return self._socket.sendall(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def _limit(self) -> None:
        left_s = self._deadline.left_s
        if left_s <= 0:
            raise TimeoutError("the call's deadline is over")
        self._socket.settimeout(0 if self._only_looks else left_s)
