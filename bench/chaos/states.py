"""The states of a chaos run: damaged by hand while they are in use, and judged at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import redis

from bench.chaos.redis import RedisInTrouble, until
from edge.kafka import KafkaConfig, topic_id
from encoder.bundle import Bundle
from encoder.models_redis import active_model
from encoder.oracle import Mismatch
from encoder.store import Deleted, read_value
from encoder.store_redis import RedisStateStore, connect
from ranker.reader import StateReader
from ranker.rows import Status
from schemas.names import Names
from schemas.state import State
from slipstream.verify import States
from stream.oracle import read_sequences

_DAMAGED_AT_ONCE = 20


class Damage:
    """Writes nonsense into states, and asks a reader what it makes of them.

    Attributes:
        users: whose states were damaged.
        unseen: how many of them a reader took for whole.
    """

    def __init__(self, trouble: RedisInTrouble, names: Names, bundle: Bundle, seed: int) -> None:
        self._trouble, self._names, self._bundle = trouble, names, bundle
        self._rng = np.random.default_rng([seed, 3])
        self.users: set[bytes] = set()
        self.unseen = 0

    def do(self) -> None:
        """Bits of some states, half of them in headers; none that an encoder wrote meanwhile."""
        client, layout = self._trouble.server.client, self._bundle.layout
        before = len(self._names.state_key(layout.model_id, b""))
        keys: list[bytes] = []

        def are_enough() -> bool:  # Redis may have been emptied just now
            keys[:] = sorted(client.scan_iter(match=self._names.state_key_pattern(layout.model_id), count=1000))
            return len(keys) >= _DAMAGED_AT_ONCE

        until("there are states to damage", are_enough)
        chosen = self._rng.permutation(len(keys))[:_DAMAGED_AT_ONCE]
        reader = StateReader(client, layout, self._names)
        for i, key in enumerate(keys[at] for at in chosen):
            value = client.get(key)
            stored = read_value(value, layout, str(key)) if isinstance(value, bytes) else None
            if not isinstance(value, bytes) or not isinstance(stored, State):
                continue
            header, end = layout.header_bytes, layout.value_bytes(stored.header.length)
            at = int(self._rng.integers(0, header) if i % 2 else self._rng.integers(header, end))
            damaged = value[:at] + bytes([value[at] ^ (1 << int(self._rng.integers(8)))]) + value[at + 1 :]
            user = key[before:]
            if self._replace(client, key, value, damaged):
                self.users.add(user)
                (row,) = reader.read([user.decode()])
                self.unseen += row.status is not Status.INVALID and client.get(key) == damaged

    @staticmethod
    def _replace(client: redis.Redis, key: bytes, value: bytes, damaged: bytes) -> bool:
        """Unless another value is there meanwhile."""
        with client.pipeline() as transaction:
            try:
                transaction.watch(key)  # type: ignore[no-untyped-call]
                if transaction.get(key) != value:
                    return False
                transaction.multi()
                transaction.set(key, damaged)
                transaction.execute()
            except redis.WatchError:
                return False
        return True


@dataclass
class StatesVerdict:
    """
    Attributes:
        states: users whose states were checked.
        remade: states that Redis dropped for want of room, or that were damaged, of users without a later event: made anew by
            what `slipstream verify --repair` does.
        differing: states that are wrong all the same: before that, of users to whose states nobody did anything, or after it.
    """

    states: int
    remade: int
    differing: list[Mismatch]
    problems: list[str] = field(default_factory=list)


def judge_states(
    kafka: KafkaConfig,
    names: Names,
    bundle: Bundle,
    trouble: RedisInTrouble,
    damage: Damage,
    notify: Callable[[str], None],
) -> StatesVerdict:
    """Every user's state against the sequence and a from-scratch encoding. Call it when the encoders have caught up."""
    store = RedisStateStore(connect(trouble.url), names, bundle.layout)
    changelog = read_sequences(kafka, names)
    users = sorted(changelog.sequences)
    states = States(bundle, store, changelog, topic_id(kafka, names.sequences), None)
    wrong = states.check(users)
    before = len(names.state_key(bundle.model_id, b""))
    lost = damage.users | {key[before:] for key in trouble.evicted}
    differing = [mismatch for mismatch in wrong if mismatch.user not in lost]
    remade = 0
    if len(wrong) > len(differing):
        notify(
            f"{len(wrong) - len(differing)} states were evicted or damaged, and had no event since: they are made anew"
        )
        remade, left = states.repair([m.user for m in wrong if m.user in lost], lambda: read_sequences(kafka, names))
        differing += left
    verdict = StatesVerdict(len(users), remade, differing)
    if differing:
        verdict.problems.append(f"{len(differing)} states differ")
    if damage.unseen:
        verdict.problems.append(f"a reader took {damage.unseen} damaged states for whole ones")
    client = trouble.server.client
    if (active := active_model(client, names)) != bundle.model_id:
        verdict.problems.append(f"rankers are to read model {active}, not {bundle.model_id}")
    keys = client.scan_iter(match=names.state_key_pattern(bundle.model_id), count=1000)
    strangers = sorted({key[before:] for key in keys} - changelog.sequences.keys())
    found = zip(strangers, store.load(strangers), strict=True)
    if unknown := [user for user, stored in found if not isinstance(stored, Deleted | None)]:
        verdict.problems.append(f"{len(unknown)} users have a state and no sequence")
    return verdict
