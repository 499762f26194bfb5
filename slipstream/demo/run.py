"""The demo, step by step: a model, three stages in processes of their own, real events, the oracle, a report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from edge.kafka import KafkaConfig
from encoder.bundle import Bundle, load_bundle
from encoder.store_redis import RedisStateStore, connect
from encoder.training import TrainConfig
from ranker.dcat import Dcat
from ranker.rank import Catalogue, rank_user
from ranker.reader import StateReader
from schemas.errors import ConfigError, UnavailableError
from schemas.event import ParserConfig
from schemas.log import EventLog
from schemas.names import Names
from slipstream.demo.freshness import RefreshLog
from slipstream.demo.kills import Killer
from slipstream.demo.live import EmbeddingRecorder, Watcher, read_embeddings
from slipstream.demo.summary import Replayed, raise_if_wrong, rank_targets, report_to, summarise
from slipstream.demo.view import ReplayView
from slipstream.pipeline import Pipeline
from slipstream.processes import Stages
from slipstream.stack import Stack
from slipstream.training import export_to, train_with_progress
from slipstream.verify import verify
from stream.inject import InjectConfig
from stream.logs import read_log
from stream.pace import FixedRate
from stream.replay import ReplayConfig, ReplayReport, run_replay
from stream.topics import create_topics

STAGES = ("ingest", "sequence", "encode")
SETTLE_TIMEOUT_S = 120.0
RANKED_USERS = 3
#: A read that is given up would count as a user without a state, and spoil the measurement.
DEADLINE_MS = 5000


@dataclass(frozen=True)
class DemoConfig:
    """
    Attributes:
        work_dir: logs, model and report.
        source: the event log; its first `train_share` trains and is loaded, the rest is replayed live.
        events: replay at most so many.
        kills: stages to kill with -9 and start again, one after the other, spread over the replay.
    """

    work_dir: Path
    source: str = "ml-100k"
    train_share: float = 0.8
    train_seconds: float = 60.0
    rate: float = 500.0
    events: int | None = None
    inject: InjectConfig = field(
        default_factory=lambda: InjectConfig(duplicates=0.01, late=0.01, malformed=0.001, seed=1)
    )
    partitions: int = 4
    kills: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.kills) - set(STAGES):
            raise ConfigError(f"--kill {', '.join(sorted(unknown))}: choose of {', '.join(STAGES)}")


class Demo:
    """One run. `run` returns the summary; the stages are stopped at its end, however it ends."""

    def __init__(
        self, config: DemoConfig, stack: Stack, names: Names, console: Console, kafka_options: Mapping[str, str]
    ) -> None:
        self._config, self._stack, self._names, self._console = config, stack, names, console
        self._kafka = KafkaConfig(stack.kafka_bootstrap, kafka_options)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def run(self) -> dict[str, Any]:
        """
        Raises:
            MismatchError: the oracle found a wrong sequence or state, or dead letters are not what was malformed.
            StageDiedError: a stage ended on its own.
            UnavailableError: the stages do not catch up.
        """
        config = self._config
        log = read_log(config.source)
        history, live = log.split(config.train_share)
        live = live[: config.events]

        self._say(f"training on the first {len(history):,} events of {config.source}")
        bundle, training = self._train(history)
        pipeline = Pipeline(self._kafka, self._stack.redis_url, self._names, bundle.model_id)
        create_topics(self._kafka, self._names, config.partitions)
        reader = StateReader(self._stack.redis_url, bundle, self._names, deadline_ms=DEADLINE_MS)

        self._say("starting ingest, sequence and encode, each a process")
        refresh_log = config.work_dir / "refreshes.jsonl"
        refresh_log.unlink(missing_ok=True)
        with Stages([], config.work_dir / "logs", pipeline.environment(bundle.directory)) as stages:
            stages.start("ingest", "ingest")
            stages.start("sequence", "sequence")
            stages.start("encode", "encode", "--refresh-log", str(refresh_log))
            self._say(f"loading {len(history):,} events at full speed")
            load_s = self._load(pipeline, history, stages)
            self._say(f"replaying {len(live):,} events live at {config.rate:,.0f} a second")
            replayed = self._replay(pipeline, bundle, reader, live, refresh_log, stages)
        self._say("verifying every sequence and state")
        store = RedisStateStore(connect(self._stack.redis_url), self._names, bundle.layout)
        checked = verify(self._kafka, self._names, bundle, store, ParserConfig(log.vocabulary), notify=self._say)
        self._show_rankings(bundle, reader, live)

        ranks = rank_targets(bundle, replayed, history, live)
        report_path = config.work_dir / "report.html"
        summary = summarise(replayed, checked, ranks, live, pipeline.dead_letters())
        summary |= {"load_s": round(load_s, 2), "training": training, "report": str(report_path)}
        report_to(report_path, replayed, ranks, summary)
        raise_if_wrong(summary, checked)
        return summary

    def _train(self, history: EventLog) -> tuple[Bundle, dict[str, Any]]:
        """What stages and rankers load, and what its training came to."""
        config = self._config
        checkpoint = config.work_dir / "checkpoint"
        training = TrainConfig(seed=config.seed, max_seconds=config.train_seconds)
        report = train_with_progress(history, training, checkpoint, self._console)
        _, directory = export_to(checkpoint, config.work_dir, None)
        return load_bundle(directory), report

    def _load(self, pipeline: Pipeline, history: EventLog, stages: Stages) -> float:
        """Seconds until every event of the history is in a state."""
        began_s = time.monotonic()
        run_replay(ReplayConfig(self._kafka, self._names), history, on_progress=lambda report: stages.check())
        self._settle(pipeline, stages)
        return time.monotonic() - began_s

    def _settle(self, pipeline: Pipeline, stages: Stages) -> None:
        """Wait until every stage has worked off what there is."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while not pipeline.is_quiet():
            stages.check()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the stages lag after {SETTLE_TIMEOUT_S:.0f} s: {pipeline.lag()}; see {stages.log_dir}"
                )
            time.sleep(0.2)

    def _replay(
        self, pipeline: Pipeline, bundle: Bundle, reader: StateReader, live: EventLog, refresh_log: Path, stages: Stages
    ) -> Replayed:
        config, d_model = self._config, bundle.shape.d_model
        frozen, frozen_known = read_embeddings(reader, live.users, d_model)
        recorder = EmbeddingRecorder(reader, live, d_model)
        refreshes = RefreshLog(refresh_log, since_ms=time.time_ns() // 1_000_000)
        killer = Killer(stages, config.kills, len(live))
        progress = [ReplayReport(0, 0, 0, 0, 0, 0, 0.0, 0.0)]

        def on_progress(report: ReplayReport) -> None:
            progress.append(report)
            killer.at(report.events_sent)
            stages.check()

        replay = ReplayConfig(self._kafka, self._names, FixedRate(config.rate), config.inject)
        view = ReplayView(self._console, len(live))
        with view, Watcher(view, refreshes, pipeline, lambda: progress[-1]) as watcher:
            report = run_replay(replay, live, on_progress, before_send=recorder)
            if report.stopped:
                raise KeyboardInterrupt
            killer.finish()
            self._settle(pipeline, stages)
        if watcher.error is not None:
            raise watcher.error
        refreshes.poll()
        refreshes.close()
        return Replayed(watcher.began_ms, report, refreshes, watcher.lags, recorder, frozen, frozen_known, killer.marks)

    def _show_rankings(self, bundle: Bundle, reader: StateReader, live: EventLog) -> None:
        """The users of the last events, ranked as a ranker would: read the state, retrieve, cross with DCAT."""
        dcat, catalogue = Dcat.of(bundle), Catalogue.of(bundle)
        users = dict.fromkeys(live.users[u] for u in reversed(live.user_index.tolist()))
        for user in list(users)[:RANKED_USERS]:
            ranking = rank_user(reader, dcat, catalogue, user, k=5)
            items = ", ".join(f"{item.item_id} ({item.score:+.2f})" for item in ranking.items)
            self._say(f"  user {user}: {ranking.status}, {ranking.length} events; best by DCAT: {items}")
