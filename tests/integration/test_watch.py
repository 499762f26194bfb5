"""`slipstream watch` in a real browser while real events stream through real stages.

The watch logs in to Redis as a user who may GET and GETRANGE and nothing else. Needs Chromium and the package playwright (extra
`dev`), which brings no browser of its own. With WATCH_SCREENSHOTS=docs/images it writes the pictures of docs/watch.md.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from PIL import Image

from bench.chaos.redis import Server
from edge.kafka import KafkaConfig
from schemas.event import encode_engagement
from schemas.names import Names
from slipstream.pipeline import Pipeline
from slipstream.processes import Stages
from slipstream.stack.choose import Machine, redis_server
from stream.topics import create_topics
from tests.bundles import random_bundle

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(420),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

ITEMS = 200
#: A user id and a title that a careless page would run.
BREAKING = "<img src=x onerror=alert(1)>"
COLOURS = ("Moss", "Ochre", "Linen", "Slate", "Walnut", "Terracotta", "Indigo", "Sage", "Ivory", "Copper")
THINGS = (
    "armchair", "wall shelf", "table lamp", "rug", "planter", "mirror", "quilt", "bench", "curtain", "vase",
    "bookcase", "sofa", "side table", "pendant lamp", "cushion", "basket", "tray", "stool", "desk", "clock",
)  # fmt: skip
HISTORY = 24
WAIT_MS = 90_000
#: Before a picture is taken, so that the curve in it is longer than a few seconds.
CURVE_MS = 75_000


def title(item_id: int) -> str:
    return BREAKING if item_id == ITEMS else f"{COLOURS[item_id % 10]} {THINGS[item_id // 10]}"


class Deployment:
    """Three stages, events that keep coming, and the watch as a process of its own."""

    def __init__(self, kafka_bootstrap: str, directory: Path, own_redis: Server) -> None:
        self.names, self.redis, self.directory = Names(f"watch-{directory.name}"), own_redis, directory
        self.kafka = KafkaConfig(kafka_bootstrap)
        bundle = random_bundle(directory / "model", items=ITEMS)
        self.model_id = bundle.model_id
        self.titles = directory / "titles.tsv"
        self.titles.write_text("item_id\ttitle\n" + "".join(f"{i}\t{title(i)}\n" for i in range(1, ITEMS + 1)))
        pipeline = Pipeline(self.kafka, f"redis://127.0.0.1:{own_redis.port}", self.names, bundle.model_id)
        self.environment = pipeline.environment(bundle.directory)
        self._producer = Producer(
            {"bootstrap.servers": kafka_bootstrap, "partitioner": "murmur2_random", "log_level": 0}
        )
        self._sent = 0

    def let_watch_log_in(self) -> str:
        """The URL of a user who may read states, and nothing else."""
        self.redis.client.execute_command(
            "ACL", "SETUSER", "watch", "on", ">secret", f"~{self.names.prefix}:*", "-@all", "+get", "+getrange"
        )
        return f"redis://watch:secret@127.0.0.1:{self.redis.port}"

    def act(self, user: str, item_id: int, action: str = "save") -> None:
        self.send(encode_engagement(user, item_id, action, "home", time.time_ns() // 1_000_000), user)

    def send(self, value: bytes, user: str) -> None:
        self._producer.produce(self.names.engagements, value, user)
        assert self._producer.flush(30) == 0

    def stream(self, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            self._sent += 1
            self.act(f"u-{self._sent % 37}", 1 + self._sent * 7 % ITEMS, ("save", "like", "view")[self._sent % 3])


@pytest.fixture(scope="module")
def deployment(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("watch")
    own_redis = Server(redis_server(Machine.this(), "this test stops it").binary, directory / "redis")
    with ExitStack() as until_the_end:
        until_the_end.callback(own_redis.kill)
        own_redis.start(append_only=True)
        made = Deployment(kafka_bootstrap, directory, own_redis)
        create_topics(made.kafka, made.names, 2)
        stages = until_the_end.enter_context(Stages([], directory / "logs", made.environment))
        for stage in ("ingest", "sequence", "encode"):
            stages.start(stage, stage)
        stop = threading.Event()
        sender = threading.Thread(target=made.stream, args=(stop,))
        sender.start()
        until_the_end.callback(lambda: (stop.set(), sender.join()))
        yield made
        stages.check()


@pytest.fixture(scope="module")
def url(deployment: Deployment) -> Iterator[str]:
    command = [sys.executable, "-m", "slipstream", "watch", "--web", "--port", "0", "--titles", str(deployment.titles)]
    environment = {**os.environ, **deployment.environment, "SLIPSTREAM_REDIS_URL": deployment.let_watch_log_in()}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/) shows", said)
        assert found, said + process.stderr.read()
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[1]
    assert (process.returncode, "Traceback" in rest) == (130, False), rest


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[playwright.Page]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(WAIT_MS)
        playwright.expect.set_options(timeout=WAIT_MS)
        trouble: list[str] = []
        page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
        page.goto(url)
        yield page
        browser.close()
        assert trouble == []


def look_up(page: playwright.Page, user: str) -> None:
    page.get_by_label("User id").fill(user)
    page.get_by_label("User id").press("Enter")


def shoot(page: playwright.Page, deployment: Deployment) -> None:
    """Pictures for the documents: desktop and phone, light and dark."""
    directory = os.environ.get("WATCH_SCREENSHOTS")
    if not directory:
        return
    page.wait_for_timeout(CURVE_MS)
    deployment.act("ada", 77)
    for size, (width, height) in {"": (1280, 1000), "-phone": (390, 844)}.items():
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(3000)
            file = Path(directory) / f"watch{size}{'-dark' if scheme == 'dark' else ''}.png"
            page.screenshot(path=file, full_page=True)
            Image.open(file).quantize(256).save(file, optimize=True)


def test_figures_move_while_events_stream(page: playwright.Page, deployment: Deployment) -> None:
    expect = playwright.expect
    expect(page.locator("#p50")).to_have_text(re.compile(r"\d+ (ms|s)"))
    expect(page.locator("#curve path.p99")).to_have_attribute("d", re.compile(r"M\d"))
    for stage in ("ingest", "sequence", "encode"):
        row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=stage))
        expect(row.get_by_role("cell").nth(1)).to_have_text(re.compile(r"[1-9]"))
    measured = page.locator("#measured").inner_text()
    expect(page.locator("#measured")).not_to_have_text(measured)
    deployment.send(f'{{"user_id": "{BREAKING}", "item_id": 1}}'.encode(), "broken")
    expect(page.locator("#letters tr").first).to_contain_text(re.compile("surface|action|timestamp"))


def test_a_users_recommendations_change_with_their_events(page: playwright.Page, deployment: Deployment) -> None:
    expect = playwright.expect
    for i in range(HISTORY):
        deployment.act("ada", 1 + i * 11 % ITEMS, ("view", "save", "like")[i % 3])
    look_up(page, "ada")
    expect(page.locator("#events tr")).to_have_count(HISTORY)
    expect(page.locator("#verdict")).to_contain_text("present")
    expect(page.locator("#items li")).to_have_count(10)
    expect(page.locator("#facts")).to_contain_text(f"{HISTORY} of")
    best = page.locator("#items .id").first.inner_text()
    deployment.act("ada", int(best), "hide")
    expect(page.locator("#events tr.new")).to_have_count(1)
    expect(page.locator("#events tr").first).to_contain_text(title(int(best)))
    expect(page.locator("#events tr").first).to_contain_text("hide")
    expect(page.locator("#change")).to_contain_text("1 new event,")
    assert best not in page.locator("#items .id").all_inner_texts(), "what was seen is left out"
    assert page.locator("#items .move:not([class='move '])").count() > 0, "what moved is marked"
    shoot(page, deployment)


def test_what_anybody_wrote_is_shown_as_text(page: playwright.Page, deployment: Deployment) -> None:
    expect = playwright.expect
    deployment.act(BREAKING, ITEMS)
    look_up(page, BREAKING)
    expect(page.locator("#events tr").first).to_contain_text(BREAKING)  # the title
    expect(page.locator("#verdict b")).to_have_text(BREAKING)
    assert page.locator("main img, main script").count() == 0


def test_who_has_no_state_or_a_damaged_one_is_told_so(page: playwright.Page, deployment: Deployment) -> None:
    expect = playwright.expect
    look_up(page, "nobody")
    expect(page.locator("#verdict")).to_contain_text("has no state")
    expect(page.locator("#items li")).to_have_count(0)
    deployment.act("bob", 3)
    look_up(page, "bob")
    expect(page.locator("#verdict")).to_contain_text("present")
    key = deployment.names.state_key(deployment.model_id, b"bob")
    value = bytes(deployment.redis.client.get(key) or b"")
    deployment.redis.client.set(key, value[:130] + bytes([value[130] ^ 255]) + value[131:])  # the embedding
    expect(page.locator("#verdict")).to_contain_text("cannot be trusted")
    expect(page.locator("#change")).to_contain_text("checksum")
    deployment.act("bob", 4)
    expect(page.locator("#verdict")).to_contain_text("present")
    expect(page.locator("#events tr")).to_have_count(2)


def test_redis_away_is_said_and_it_goes_on_when_it_is_back(page: playwright.Page, deployment: Deployment) -> None:
    expect = playwright.expect
    deployment.act("eve", 41)
    look_up(page, "eve")
    expect(page.locator("#verdict")).to_contain_text("present")
    deployment.redis.kill()
    expect(page.locator("#trouble")).to_contain_text("Nothing comes from Redis")
    expect(page.locator("#verdict")).to_contain_text("unavailable")
    expect(page.locator("#kafka")).to_contain_text("answers")
    deployment.redis.start(append_only=True)
    deployment.let_watch_log_in()
    expect(page.locator("#trouble")).to_be_empty()
    expect(page.locator("#verdict")).to_contain_text("present")
    deployment.act("eve", 42)
    expect(page.locator("#events tr.new").first).to_contain_text(title(42))


def test_only_this_machines_pages_may_ask(url: str, deployment: Deployment) -> None:
    address = urlsplit(url)

    def ask(method: str, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(address.hostname or "", address.port or 0, timeout=30)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        connection.close()
        return answer.status, answer.headers

    status, headers = ask("GET", "/")
    assert (status, "default-src 'none'" in headers["content-security-policy"]) == (200, True)
    assert ask("GET", "/", Host="evil.example")[0] == 400, "a name that was made to resolve to this machine"
    assert ask("GET", "/", Host=f"[::1]:{address.port}")[0] == 200
    assert ask("GET", "/events", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask("GET", f"/events?user={'x' * 257}")[0] == 400
    assert ask("POST", "/events")[0] == 405
    assert ask("GET", "/../pyproject.toml")[0] == 404
    groups = AdminClient(
        {"bootstrap.servers": deployment.kafka.bootstrap_servers, "log_level": 0}
    ).list_consumer_groups()
    own = {g.group_id for g in groups.result(30).valid if g.group_id.startswith(deployment.names.prefix)}
    assert all(re.search("-(ingest|sequence|encoder-[0-9a-f]{16})$", group) for group in own), own


def test_the_terminal_has_the_same_figures(deployment: Deployment) -> None:
    command = [sys.executable, "-m", "slipstream", "watch", "--json"]
    with subprocess.Popen(command, env={**os.environ, **deployment.environment}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            figures = next(f for f in map(json.loads, process.stdout) if f["freshness"]["measured"])
        finally:
            process.send_signal(signal.SIGINT)
    assert figures["freshness"]["p99_ms"] >= figures["freshness"]["p50_ms"] >= 0
    assert {stage["name"] for stage in figures["stages"]} == {"ingest", "sequence", "encode"}
    assert process.returncode == 130
