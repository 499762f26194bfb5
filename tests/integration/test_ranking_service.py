"""examples/ranking-service as a process, while its Redis is stopped, frozen, slow and corrupted under load."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from bench.chaos.redis import Server
from bench.programs import metrics
from bench.proxy import Proxy, proxied
from bench.rank_states import Ranked, write_states
from ranker import Dcat, StateReader
from ranker import Request as Crossing
from schemas.names import Names
from slipstream.stack.choose import Machine, redis_server
from slipstream.stack.process import free_port
from tests.integration.encoding import wait_until

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).parents[2] / "examples" / "ranking-service"
CANDIDATES = list(range(1, 21))
NAMES = Names("shop")
USERS = 4


class Service:
    """The example as people run it."""

    def __init__(self, ranked: Ranked, redis_url: str, directory: Path, **options: object) -> None:
        self.port, self.log = free_port(), directory / "service.log"
        given = {
            "bundle": ranked.bundle.directory,
            "redis-url": redis_url,
            "prefix": NAMES.prefix,
            "port": self.port,
            **options,
        }
        command = [sys.executable, "-m", "ranking_service"]
        command += [f"--{name}={value}" for name, value in given.items()]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=EXAMPLE, stdout=log, stderr=log)

    def get(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urlopen(Request(f"http://127.0.0.1:{self.port}{path}", data), timeout=30) as answer:
                status, content = answer.status, answer.read()
        except HTTPError as error:
            status, content = error.code, error.read()
        return status, json.loads(content) if content.startswith(b"{") else content

    def rank(self, user: str) -> dict[str, Any]:
        status, answer = self.get("/rank", {"user": user, "candidates": CANDIDATES})
        assert status == 200, answer
        assert len(answer["scores"]) == len(CANDIDATES)
        return dict(answer)

    def fallbacks(self, reason: str) -> int:
        return int(metrics(self.port)[f'ranking_fallbacks_total{{reason="{reason}"}}'])

    def wait(self) -> None:
        def serves() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return self.get("/health")[0] == 200
            except URLError:
                return False

        wait_until("it serves", serves)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """One that a test may kill and freeze."""
    made = Server(redis_server(Machine.this(), "these tests kill and freeze it").binary, tmp_path / "redis")
    try:
        made.start()
        yield made
    finally:
        made.client.close()
        made.kill()


@pytest.fixture
def ranked(own_redis: Server, tmp_path: Path) -> Ranked:
    return states_in(own_redis, tmp_path / "model")


def states_in(own_redis: Server, directory: Path) -> Ranked:
    """The same model and the same states each time, and the model is active."""
    made = write_states(f"redis://127.0.0.1:{own_redis.port}", NAMES, directory, "nano", USERS)
    own_redis.client.set(NAMES.active_key, made.bundle.model_id)
    return made


@pytest.fixture
def proxy(own_redis: Server) -> Iterator[Proxy]:
    with proxied("127.0.0.1", own_redis.port) as made:
        yield made


@pytest.fixture
def service(ranked: Ranked, proxy: Proxy, tmp_path: Path) -> Iterator[Service]:
    # Time enough on a busy machine: what is tested is that an answer comes, and whose.
    made = Service(ranked, f"redis://127.0.0.1:{proxy.port}", tmp_path, **{"deadline-ms": 2000, "read-ms": 1000})
    try:
        made.wait()
        yield made
    finally:
        made.process.terminate()
        made.process.wait(30)
    assert "Traceback" not in made.log.read_text()


def test_scores_are_the_models_and_say_how_fresh(service: Service, ranked: Ranked) -> None:
    (row,) = StateReader(ranked.redis_url, ranked.bundle, NAMES).read([ranked.users[1]])
    (scores,) = Dcat.of(ranked.bundle).score([Crossing(row, np.array(CANDIDATES))])
    answer = service.rank(ranked.users[1])
    np.testing.assert_allclose(answer["scores"], scores.score, atol=1e-5)
    assert (answer["scored_by"], answer["status"], answer["length"]) == ("model", "present", row.length)
    new = service.rank("nobody")
    assert (new["scored_by"], new["fallback"], new["status"]) == ("popularity", "not_found", "not_found")
    counts = dict(zip(ranked.bundle.catalogue_ids.tolist(), ranked.bundle.catalogue_counts.tolist(), strict=True))
    np.testing.assert_allclose(new["scores"], [np.log1p(counts.get(item, 0)) for item in CANDIDATES], rtol=1e-5)


def test_a_bad_request_is_told_so_and_harms_no_other(service: Service) -> None:
    for body, status, says in (
        (b"{", 400, "no request"),
        (b"\xff", 400, "no request"),
        ({"user": "u", "candidates": []}, 400, "candidates"),
        ({"user": "", "candidates": [1]}, 400, "user"),
        ({"user": "u", "candidates": [1 << 64]}, 400, "candidates"),
        ({"user": "u", "candidates": ["a"]}, 400, "candidates[0]"),
        ({"user": "u", "candidates": [1], "max_age": 1}, 400, "max_age"),
        (b" " * (1 << 20) + b"{}", 413, "longer"),
    ):
        got, answer = service.get("/rank", body)
        assert (got, says in answer["error"]) == (status, True), answer
        assert service.rank("nobody")["scored_by"] == "popularity"
    assert service.get("/nothing")[0] == 404


class Load:
    """Clients that ask without end; every answer is kept, and an error of HTTP is one."""

    def __init__(self, service: Service, users: list[str]) -> None:
        self._service, self._users = service, users
        self._stop = threading.Event()
        self.answers: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def see(self, outcome: str) -> None:
        """Wait for a few more answers of this kind."""
        enough = self.answers[outcome] + 5
        wait_until(
            f"{outcome}: {self.answers} {self.errors}", lambda: bool(self.errors) or self.answers[outcome] >= enough
        )

    def _ask(self, at: int) -> None:
        try:
            while not self._stop.is_set():
                at += 1
                answer = self._service.rank(self._users[at % len(self._users)])
                self.answers[answer["fallback"] or answer["scored_by"]] += 1
        except BaseException as error:
            self.errors.append(error)


def test_redis_stopped_frozen_slow_and_corrupted_under_load(
    service: Service, ranked: Ranked, own_redis: Server, proxy: Proxy, tmp_path: Path
) -> None:
    with Load(service, ranked.users) as load:
        load.see("model")

        own_redis.kill()
        load.see("unavailable")
        assert service.get("/ready")[0] == 200, "there is an answer for an outage"
        own_redis.start()
        load.see("not_found")  # it came back empty
        states_in(own_redis, tmp_path / "again")
        load.see("model")

        assert own_redis.process is not None
        own_redis.process.send_signal(signal.SIGSTOP)
        load.see("unavailable")
        own_redis.process.send_signal(signal.SIGCONT)
        load.see("model")

        proxy.delay_s = 30.0
        load.see("unavailable")
        proxy.delay_s = 0.0
        proxy.cut()
        load.see("model")

        keys = [NAMES.state_key(ranked.bundle.model_id, user.encode()) for user in ranked.users]
        for key in keys:
            byte = own_redis.client.getrange(key, 4000, 4000)
            own_redis.client.setrange(key, 4000, bytes([byte[0] ^ 1]))
        load.see("invalid")
        states_in(own_redis, tmp_path / "healed")
        load.see("model")
    assert load.errors == [], "every request was answered"
    for reason in ("unavailable", "not_found", "invalid"):
        assert service.fallbacks(reason) == load.answers[reason]
    seen = metrics(service.port)
    assert seen['slipstream_ranker_read_failures_total{reason="deadline"}'] > 0
    assert seen['slipstream_ranker_read_failures_total{reason="circuit_open"}'] > 0, "so most fell back at once"
    assert seen['slipstream_ranker_rows_total{status="invalid"}'] == load.answers["invalid"]


def test_no_time_to_score_is_a_counted_fallback(ranked: Ranked, proxy: Proxy, tmp_path: Path) -> None:
    # Reading may take all of the request's time here, and does.
    options = {"deadline-ms": 1000, "read-ms": 1000, "max-age-ms": 5}
    made = Service(ranked, f"redis://127.0.0.1:{proxy.port}", tmp_path, **options)
    try:
        made.wait()
        stale = made.rank(ranked.users[0])
        assert (stale["status"], stale["scored_by"]) == ("stale", "model")
        proxy.delay_s = 30.0
        answer = made.rank(ranked.users[0])
        assert answer["fallback"] in ("deadline", "unavailable")
        assert answer["status"] == "unavailable"
        assert made.fallbacks(answer["fallback"]) == 1
    finally:
        made.process.terminate()
        made.process.wait(30)


def test_another_active_model_is_a_reason_not_to_be_ready(service: Service, ranked: Ranked, own_redis: Server) -> None:
    assert service.get("/ready") == (200, {"ready": True, "why": ""})
    assert metrics(service.port)["ranking_ready"] == 1
    own_redis.client.set(NAMES.active_key, "ff" * 8)
    wait_until("it is not ready", lambda: service.get("/ready")[0] == 503)
    assert "load the bundle of ffffffffffffffff" in service.get("/ready")[1]["why"]
    assert metrics(service.port)["ranking_ready"] == 0
    assert service.rank(ranked.users[0])["scored_by"] == "model"


def test_the_load_script_tells_what_scored(service: Service, ranked: Ranked, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("\n".join([*ranked.users, "nobody"]))
    command = [sys.executable, "-m", "ranking_service.load", "--url", f"http://127.0.0.1:{service.port}"]
    command += ["--rate", "50", "--seconds", "1", "--user-file", str(tmp_path / "users.txt")]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["requests"] == sum(result["outcomes"].values()) == 50
    assert set(result["outcomes"]) <= {"model", "not_found", "deadline"}
    assert result["outcomes"]["model"] > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [({"bundle": "nowhere"}, "nowhere"), ({"read-ms": 500}, "read_ms 500"), ({"redis-url": "http://x"}, "Redis URL")],
)
def test_a_bad_setting_ends_it_with_a_message(
    ranked: Ranked, tmp_path: Path, options: dict[str, object], says: str
) -> None:
    made = Service(ranked, str(options.pop("redis-url", "redis://127.0.0.1:1")), tmp_path, **options)
    assert made.process.wait(60) not in (0, -signal.SIGTERM)
    assert says in made.log.read_text()
    assert "Traceback" not in made.log.read_text()
