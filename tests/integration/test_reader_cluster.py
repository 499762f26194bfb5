"""The reader on a real Redis Cluster: three nodes, keys in all of them, one node lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from ranker.reader import StateReader
from ranker.rows import Status
from schemas.errors import UnavailableError
from schemas.names import Names
from slipstream.stack.choose import Machine, redis_server
from slipstream.stack.process import free_port, port_is_free
from tests.ranker.readers import Blocking
from tests.ranker.states import LAYOUT, MODEL_ID, made_state

pytestmark = pytest.mark.integration

SLOTS = 16384
NODES = 3


def cluster_port() -> int:
    """A free port whose cluster bus port, 10000 above it, is free too."""
    while True:
        port = free_port()
        if port_is_free(port + 10_000):
            return port


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[tuple[int, subprocess.Popen[bytes]]]]:
    binary = redis_server(Machine.this(), None).binary
    started: list[tuple[int, subprocess.Popen[bytes]]] = []
    try:
        for i in range(NODES):
            home, port = tmp_path / str(i), cluster_port()
            home.mkdir()
            options = f"--port {port} --bind 127.0.0.1 --cluster-enabled yes --appendonly no --dir {home} --logfile {home}/log"
            # A lost node must not make the others refuse their own keys, as a deployment that wants to go on would set it.
            options += " --cluster-require-full-coverage no --cluster-node-timeout 60000"
            started.append((port, subprocess.Popen([binary, *options.split(), "--save", ""])))
        yield started
    finally:
        for _, process in started:
            process.kill()
            process.wait()


def until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def cluster(nodes: list[tuple[int, subprocess.Popen[bytes]]]) -> Iterator[redis.RedisCluster]:
    clients = [redis.Redis(port=port) for port, _ in nodes]

    def answers(client: redis.Redis) -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    for i, client in enumerate(clients):
        until(lambda client=client: answers(client), "a node does not start")
        first, last = SLOTS * i // NODES, SLOTS * (i + 1) // NODES
        client.execute_command("CLUSTER ADDSLOTS", *range(first, last))
        client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0][0])
    for client in clients:
        until(lambda client=client: client.cluster("INFO")["cluster_slots_assigned"] == str(SLOTS), "no cluster forms")
        until(lambda client=client: client.cluster("INFO")["cluster_state"] == "ok", "the cluster is not ok")
        client.close()
    made = redis.RedisCluster(
        startup_nodes=[ClusterNode("127.0.0.1", port) for port, _ in nodes],
        retry=Retry(NoBackoff(), 0),
        socket_timeout=5,
        dynamic_startup_nodes=False,
    )
    yield made
    made.close()


def test_keys_of_every_node_come_in_one_call_and_a_lost_node_is_an_outage(
    cluster: redis.RedisCluster, nodes: list[tuple[int, subprocess.Popen[bytes]]]
) -> None:
    names = Names("p")
    users = [f"u{seed}" for seed in range(30)]
    keys = {user: names.state_key(MODEL_ID, user.encode()) for user in users}
    for seed, user in enumerate(users):
        cluster.set(keys[user], made_state(seed))
    owners = {user: cluster.get_node_from_key(keys[user]).port for user in users}
    assert len(set(owners.values())) == NODES, "the keys lie on all nodes"
    reader = StateReader(cluster, LAYOUT, names)
    rights = ["+get", "+getrange", "+cluster|slots", "+command", "+readonly"]  # as docs/reading-states.md has them
    for port, _ in nodes:
        with redis.Redis(port=port) as node:
            node.acl_setuser("ranker", enabled=True, passwords=["+secret"], commands=rights, keys=["p:*"])
    url = f"redis+cluster://ranker:secret@127.0.0.1:{nodes[2][0]}"
    by_url = [cls(at, LAYOUT, names, deadline_ms=30_000) for cls in (StateReader, Blocking)
              for at in (url, f"{url}?read_from_replicas=yes")]  # fmt: skip
    for opened in (reader, *by_url):
        for embedding_only in (False, True):
            rows = opened.read([*users, "nobody"], embedding_only=embedding_only)
            assert [row.status for row in rows] == [Status.PRESENT] * len(users) + [Status.NOT_FOUND]

    _, process = nodes[1]
    process.kill()
    process.wait()
    with pytest.raises(UnavailableError, match="is it running") as caught:
        reader.read(users)
    assert caught.value.retriable
    for opened in by_url:
        if isinstance(opened, StateReader):
            with pytest.raises(UnavailableError):
                opened.read(users)
        else:  # its pipeline goes on with the other nodes
            lost = {user for user, port in owners.items() if port == nodes[1][0]}
            assert {row.user for row in opened.read(users) if row.status is Status.INVALID} == lost
        opened.close()
    with pytest.raises(UnavailableError, match="a cluster"):
        StateReader(f"redis+cluster://127.0.0.1:{nodes[1][0]}", LAYOUT, names, deadline_ms=5000)
