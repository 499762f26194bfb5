"""A TCP proxy before a real server, which can be slow, stall, cut off, or lead to another server: Redis in trouble, from afar."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Forwards bytes both ways on threads of its own.

    Args:
        tls: what clients must speak to it; it speaks plainly to the server.

    Attributes:
        port: where it listens on 127.0.0.1.
        server: (host, port) that new connections lead to; set it to another one, and `cut`.
        accepted: connections so far.
        answering: clear it, and what the server answers waits.
        delay_s: that each piece of an answer waits.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.server = (host, port)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.answering = threading.Event()
        self.answering.set()
        self.delay_s = 0.0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection, as a server that restarts does."""
        while self._open:
            _close(self._open.pop())

    def close(self) -> None:
        self.answering.set()
        # A thread that waits in accept() keeps a closed listener alive: wake it first.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                try:
                    if self._tls:
                        client = self._tls.wrap_socket(client, server_side=True)
                    server = socket.create_connection(self.server)
                except OSError:  # no TLS came of it, or nobody is there: the client sees its connection closed
                    client.close()
                    continue
                self._open += [client, server]
                threading.Thread(target=self._forward, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while received := source.recv(1 << 16):
                if is_answer:
                    self.answering.wait()
                    time.sleep(self.delay_s)
                target.sendall(received)
        _close(target)  # the other side hears that there will be no more


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def proxied(host: str, port: int, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    proxy = Proxy(host, port, tls)
    try:
        yield proxy
    finally:
        proxy.close()
