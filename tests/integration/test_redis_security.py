"""Redis with TLS, client certificates and a user for each role, each with the rights that docs/operations.md says, and no more.

Run: pytest tests/integration/test_redis_security.py
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from redis.exceptions import NoPermissionError

from encoder.models_redis import activate_model, active_model, delete_states
from encoder.store_redis import RedisStateStore, connect
from ranker.reader import StateReader, Status
from schemas.sequence import NO_RECORDS
from slipstream.doctor.finding import Level
from slipstream.doctor.judge_redis import PERSISTENCE
from slipstream.doctor.redis import redis_findings
from tests.encoder.models import Model
from tests.integration.encoding import Changelog, encoder
from tests.integration.secure_redis import ADMIN, ADMIN_PASSWORD, SecureRedis, secure_redis
from tests.integration.test_encode import USERS, step

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
PASSWORD = "hunter2-of-role"
#: What any user may do, and what our own look at the counters is.
_NOT_THE_ROLES = {"auth", "hello", "client", "client|setinfo", "config", "config|get", "config|resetstat"}


class Role(NamedTuple):
    """A user of Redis as the document wants it."""

    url: str
    may: frozenset[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureRedis]:
    with secure_redis(tmp_path_factory.mktemp("redis")) as started:
        yield started


def documented() -> Mapping[str, frozenset[str]]:
    """Commands of each role, from the table."""
    rows = re.findall(r"^\| (.+) \| `~PREFIX:\*` \| (`\+.+`) \|$", PAGE.read_text(), re.MULTILINE)
    return {who: frozenset(re.findall(r"\+(\S+?)[ `]", may)) for who, may in rows}


ENCODE, RANKERS, LOOK, ACTIVATE, RETIRE, DOCTOR = documented()


def user(server: SecureRedis, prefix: str, who: str) -> Role:
    may, name = documented()[who], f"{prefix}-{list(documented()).index(who)}"
    commands = [f"+{command}" for command in may]
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", f"~{prefix}:*", *commands)
    return Role(server.url(name, PASSWORD), may)


@contextmanager
def exactly(server: SecureRedis, role: Role, perhaps: frozenset[str] = frozenset()) -> Iterator[str]:
    """What runs inside may do all it wants to, and wants all that it may, `perhaps` those too."""
    with server.admin() as admin:
        admin.config_resetstat()
        yield role.url
        counted = admin.info("commandstats")
    names = {name.removeprefix("cmdstat_"): calls for name, calls in counted.items()}
    used = {name for name, calls in names.items() if calls["calls"] or calls["rejected_calls"]} - _NOT_THE_ROLES
    assert used | perhaps == role.may


def test_each_role_with_the_rights_of_the_document(
    server: SecureRedis, model: Model, changelog: Changelog, prefix: str, tmp_path: Path
) -> None:
    # A connection that was idle for 30 s begins with a PING.
    ping = frozenset({"ping"})
    with exactly(server, user(server, prefix, ENCODE), ping) as url:
        for users, ttl_s in ((USERS[:30], 0), (USERS[30:], 3600)):
            changelog.write(step(0, users))
            with encoder(model, changelog, url, tmp_path / f"{ttl_s}.log", state_ttl_s=ttl_s) as worker:
                changelog.wait_for(model)
                for number in range(1, 12):  # long enough for the window to slide
                    changelog.write(step(number, users))
                    # Each its own write: steps folded into one may leave no state that keeps its size, the case of PERSIST.
                    changelog.wait_for(model)
                changelog.write({users[0]: NO_RECORDS})  # forgotten
                changelog.wait_for(model)
                assert worker.terminate() == 0
                assert PASSWORD not in worker.log
        assert changelog.mismatches(model, url) == []

    names = changelog.names
    with (
        exactly(server, user(server, prefix, RANKERS)) as url,
        closing(StateReader(url, model.bundle, names, deadline_ms=5_000)) as reader,
    ):
        for embedding_only in (False, True):
            rows = reader.read([user.decode() for user in USERS], embedding_only=embedding_only)
            assert Counter(row.status for row in rows) == {Status.PRESENT: len(USERS) - 2, Status.NOT_FOUND: 2}
        reader.require_active()
        assert PASSWORD not in repr(reader)

    with exactly(server, user(server, prefix, LOOK), ping) as url, connect(url) as client:
        assert active_model(client, names) == model.bundle.model_id
        assert all(RedisStateStore(client, names, model.layout).load(USERS[1:]))
    with exactly(server, user(server, prefix, ACTIVATE), ping) as url, connect(url) as client:
        assert activate_model(client, names, active_model(client, names) or "") == model.bundle.model_id
    with exactly(server, user(server, prefix, DOCTOR)) as url:
        findings = list(redis_findings(url, names, 0, model.layout))
        troubles = [found for found in findings if found.level is not Level.OK and found.check != PERSISTENCE]
        assert troubles == []
        assert PASSWORD not in str(findings)
    with exactly(server, user(server, prefix, RETIRE), ping) as url, connect(url) as client:
        assert active_model(client, names)
        assert delete_states(client, names, model.bundle.model_id, lambda deleted: None) == len(USERS)


def test_what_a_role_may_not_do(server: SecureRedis, prefix: str) -> None:
    for who in documented():
        with redis.Redis.from_url(user(server, prefix, who).url) as client:
            for refused in (["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "SET", "maxmemory", "1"], ["DEL", f"{prefix}:a"],
                            ["ACL", "LIST"], ["GET", "another:active"]):  # fmt: skip
                with pytest.raises(NoPermissionError):
                    client.execute_command(*refused)
            if who in (RANKERS, LOOK, DOCTOR):
                with pytest.raises(NoPermissionError):
                    client.set(f"{prefix}:active", "0" * 16)
    with redis.Redis.from_url(server.url("default", "")) as anybody, pytest.raises(redis.AuthenticationError):
        anybody.get(f"{prefix}:active")
    nobody = redis.Redis.from_url(server.url(ADMIN, ADMIN_PASSWORD, certificate=False))
    with nobody as without_certificate, pytest.raises(redis.ConnectionError):
        without_certificate.ping()


def test_a_login_that_is_refused_ends_the_encoder(
    server: SecureRedis, model: Model, changelog: Changelog, prefix: str, tmp_path: Path
) -> None:
    changelog.write(step(0))
    good = user(server, prefix, ENCODE).url
    wrong = {
        "password": good.replace(PASSWORD, PASSWORD + "-not"),
        "rights": user(server, prefix, LOOK).url,
        "keys": user(server, "another", ENCODE).url,
        "authority": good.replace("ca.pem", "other.pem"),
    }
    with ExitStack() as until_the_end:
        workers = [
            until_the_end.enter_context(
                encoder(model, changelog, url, tmp_path / f"{name}.log", publish_active=name != "rights")
            )
            for name, url in wrong.items()
        ]
        for worker in workers:
            assert worker.process.wait(60) == 2, worker.log
            assert "redis_url" in worker.log
            assert PASSWORD not in worker.log
