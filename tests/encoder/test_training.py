from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.bundle import load_bundle
from encoder.checkpoint import NOTES, WEIGHTS, load_checkpoint
from encoder.export import export
from encoder.losses import EXCLUDED, Horizon, crossing_loss, foresee
from encoder.model import PinFM
from encoder.runtime import Runtime
from encoder.training import Progress, TrainConfig, TrainReport, train
from encoder.validation import validate
from encoder.weights import random_weights
from encoder.windows import cut, histories, training_spans
from schemas.bundle import ModelShape
from schemas.errors import BundleError, ConfigError, LogError
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary

SHAPE = ModelShape(layers=1, d_model=32, heads=2, kv_heads=1, context=24, keep=16, rows=512)
CONFIG = TrainConfig(
    shape=SHAPE, max_seconds=None, max_steps=150, threads=1, warmup_steps=10, negatives=64, held_out=0.1
)
ITEMS = 60


def circle_log(users: int = 40, events: int = 40, seed: int = 0) -> EventLog:
    """Every user goes round a circle of items from a random place: who knows the last item knows the next one."""
    rng = np.random.default_rng(seed)
    records = np.zeros(users * events, RECORD)
    user_index = np.tile(np.arange(users, dtype=np.int32), events)
    step = np.repeat(np.arange(events), users)
    records["timestamp_ms"] = 1_000_000 + 1000 * step + user_index
    records["item_id"] = 7 * ((rng.integers(0, ITEMS, users)[user_index] + step) % ITEMS)
    records["action"] = rng.choice([1, 4], len(records))
    return EventLog([f"user-{i}" for i in range(users)], user_index, records, Vocabulary())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainReport, list[Progress]]:
    seen: list[Progress] = []
    return train(circle_log(), CONFIG, tmp_path_factory.mktemp("train") / "checkpoint", seen.append), seen


# ---- windows


def test_histories_are_sequences() -> None:
    rows = [(30, 5, 1, 0), (10, 9, 2, 1), (10, 4, 2, 1), (20, 5, 3, 0)]
    log = EventLog(["a", "b", "c"], np.array([2, 0, 0, 2], np.int32), np.array(rows, RECORD), Vocabulary())
    data = histories(log)
    assert data.starts.tolist() == [0, 2, 4]
    assert data.item_ids[data.items].tolist() == [4, 9, 5, 5]
    assert data.actions.tolist() == [2, 2, 3, 1]
    assert data.arrival.tolist() == [2, 1, 3, 0]
    assert dict(zip(data.item_ids.tolist(), data.counts.tolist(), strict=True)) == {4: 1, 9: 1, 5: 2}


def test_windows_are_padded_and_know_their_targets() -> None:
    data = histories(circle_log(users=3, events=5))
    positive = np.arange(7) != 4
    windows = cut(data, np.array([[0, 5], [7, 9]]), positive)
    assert windows.real.tolist() == [[True] * 5, [True, True, False, False, False]]
    np.testing.assert_array_equal(windows.items[0], data.items[:5])
    np.testing.assert_array_equal(windows.items[1], [*data.items[7:9], 0, 0, 0])
    np.testing.assert_array_equal(windows.is_target[0], data.actions[1:5] != 4)
    assert windows.is_target[1].tolist() == [data.actions[8] != 4, False, False, False]


def test_an_epoch_holds_every_short_history_whole_and_long_ones_in_parts() -> None:
    log = circle_log(users=11, events=60)
    log = EventLog(log.users, log.user_index, log.records, log.vocabulary)[: 11 * 10]  # ten events each
    data = histories(log)
    spans = training_spans(data, 24, 12, np.random.default_rng(0))  # one window of 12 inputs at most
    epoch = np.concatenate([next(spans) for _ in range(11)])
    assert sorted(epoch.tolist()) == [[10 * i, 10 * i + 10] for i in range(11)]
    long = histories(circle_log(users=2, events=60))
    epoch = next(training_spans(long, 24, 24 * 6, np.random.default_rng(0)))
    assert (epoch[:, 1] - epoch[:, 0] == 25).all()
    assert len(epoch) == 6, "three windows of 24 targets hold 59"


# ---- losses


def test_windows_of_like_length_share_a_batch_and_none_is_left_out_for_long() -> None:
    rng = np.random.default_rng(1)
    log = circle_log(users=60, events=40)
    log = EventLog(log.users, log.user_index, log.records, log.vocabulary)
    kept = np.concatenate([np.flatnonzero(log.user_index == user)[: rng.integers(2, 40)] for user in range(60)])
    data = histories(EventLog(log.users, log.user_index[kept], log.records[kept], log.vocabulary))
    spans = training_spans(data, 24, 96, rng)
    seen: set[int] = set()
    alike = 0
    for _ in range(60):
        batch = next(spans)
        inputs = batch[:, 1] - batch[:, 0] - 1
        assert len(batch) * inputs.max() <= 96
        alike += inputs.max() <= 3 or 2 * inputs.min() >= inputs.max()
        seen |= set(np.searchsorted(data.starts, batch[:, 0], side="right").tolist())
    assert len(seen) == 60
    assert alike > 45, "but for the few batches that left-overs are in"


def test_losses_are_softmaxes_without_the_users_own_items() -> None:
    g = torch.Generator().manual_seed(0)
    hidden, targets, negatives = (torch.randn(*size, 8, generator=g) for size in ((2, 3), (2, 3), (5,)))
    is_target = torch.tensor([[True, False, True], [False, True, True]])
    excluded = torch.tensor([[True, False, False, False, True], [False, False, True, False, False]])

    def expected(pairs: list[tuple[int, int, int]]) -> float:
        """The mean over (window, state, target)."""
        losses = []
        for b, t, s in pairs:
            logits = [2.0 * hidden[b, t] @ targets[b, s]]
            logits += [2.0 * hidden[b, t] @ negatives[n] for n in range(5) if not excluded[b, n]]
            losses.append(-torch.stack(logits).log_softmax(0)[0])
        return float(torch.stack(losses).mean())

    bias = excluded * EXCLUDED
    got = foresee(hidden, targets, is_target, negatives, bias, torch.tensor(2.0), Horizon(2, future_from=1, future=9))
    assert float(got.next) == pytest.approx(expected([(0, 0, 0), (0, 2, 2), (1, 1, 1), (1, 2, 2)]))
    assert float(got.multi) == pytest.approx(expected([(0, 1, 2), (1, 0, 1), (1, 1, 2)])), "two steps ahead"
    assert float(got.future) == pytest.approx(expected([(0, 0, 0), (0, 0, 2), (1, 0, 1), (1, 0, 2)])), (
        "all of the first state"
    )
    alone = foresee(hidden, targets, is_target, negatives, bias, torch.tensor(2.0), Horizon())
    assert [float(x) for x in alone] == [float(got.next), 0, 0]
    assert float(crossing_loss(torch.tensor([[100.0, 0, 0]]))) == 0


# ---- training


def test_a_model_learns_what_can_be_learned(trained: tuple[TrainReport, list[Progress]]) -> None:
    report, _ = trained
    print(report)
    assert report.steps == 150
    assert (report.users, report.items, report.events) == (40, ITEMS, 1440)
    assert report.metrics["targets"] == 160
    assert report.metrics["hr10"] > 0.9
    assert report.metrics["popularity_hr10"] < 0.6
    assert report.loss < 3


@torch.no_grad()
def test_crossing_scores_mean_something(trained: tuple[TrainReport, list[Progress]]) -> None:
    """Through the exported graphs: the true next item scores above a random one."""
    bundle = exported(trained[0])
    runtime, log = Runtime(bundle), circle_log(seed=9)
    right = 0
    for user in range(40):
        records = log.records[log.user_index == user]
        slots = runtime.encode(bundle.features.window_tokens(records[:12])[None], np.array([11]))
        true = records["item_id"][12]
        others = 7 * ((true // 7 + np.arange(15, 45, 3)) % ITEMS)
        candidates = bundle.features.candidates(np.append(true, others))[None]
        score = runtime.cross(candidates, slots.kv, slots.scales, np.array([12])).score[0]
        right += int((score[0] > score[1:]).sum())
    print(f"{right / 400:.1%} of the pairs are ordered right")
    assert right > 0.75 * 400


def test_progress_tells_the_way_to_the_end(trained: tuple[TrainReport, list[Progress]]) -> None:
    _, seen = trained
    assert seen[-1].step == 150
    assert seen[-1].share == 1
    assert seen[-1].remaining_s == 0
    assert [p.step for p in seen] == sorted({p.step for p in seen})
    assert all(0 < p.share <= 1 and np.isfinite(p[2:]).all() for p in seen)


def test_a_training_can_be_repeated(tmp_path: Path) -> None:
    config = replace(CONFIG, max_steps=5)
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        train(circle_log(), replace(config, seed=seed), tmp_path / str(number))
        weights.append(load_checkpoint(tmp_path / str(number)).weights)
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])
    assert (weights[0]["items"] != weights[2]["items"]).any()


def test_what_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    log = circle_log()
    config = replace(CONFIG, max_steps=3)
    train(log, config, tmp_path / "a")
    other = log.records.copy()
    other["item_id"][-160:] = other["item_id"][-160:][::-1]
    train(EventLog(log.users, log.user_index, other, log.vocabulary), config, tmp_path / "b")
    a, b = load_checkpoint(tmp_path / "a"), load_checkpoint(tmp_path / "b")
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name])
    assert a.notes.metrics != b.notes.metrics


def test_torch_is_left_as_it_was_found(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(circle_log(), replace(CONFIG, max_steps=12, threads=None), tmp_path / "checkpoint")
    assert torch.get_num_threads() == before


def test_all_of_a_log_can_be_trained_on(tmp_path: Path) -> None:
    report = train(circle_log(), replace(CONFIG, max_steps=2, held_out=0, crossing_weight=0), tmp_path / "checkpoint")
    assert (report.events, report.metrics, report.crossing_loss) == (1600, {}, 0)


def test_excluded_actions_are_no_targets(tmp_path: Path) -> None:
    report = train(circle_log(), replace(CONFIG, max_steps=2, not_targets=("hide", "save")), tmp_path / "checkpoint")
    assert 0 < report.metrics["targets"] < 160


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_steps": None}, "never ends"),
        ({"learning_rate": 0}, "learning_rate: 0"),
        ({"batch_tokens": 0, "held_out": 1.0}, r"batch_tokens: 0 .*held_out: 1\.0"),
    ],
)
def test_a_wrong_configuration_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_a_training_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\['purchase'\] are no actions"):
        train(circle_log(), replace(CONFIG, not_targets=("purchase",)), tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="nothing to foresee"):
        train(circle_log(), replace(CONFIG, not_targets=Vocabulary().actions), tmp_path / "checkpoint")
    with pytest.raises(LogError, match="two events"):
        train(circle_log(events=1), CONFIG, tmp_path / "checkpoint")
    with pytest.raises(LogError, match="two events"):
        train(circle_log()[:0], CONFIG, tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="diverged"):
        train(circle_log(), replace(CONFIG, learning_rate=1e30, max_steps=20), tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


# ---- validation


@torch.no_grad()
def test_validation_ranks_as_told() -> None:
    """Against the same, event by event."""
    log = circle_log(users=7, events=20)
    rng = np.random.default_rng(3)
    log.records["item_id"] = rng.integers(0, 30, len(log))
    model = PinFM(SHAPE, Vocabulary())
    model.load_weights(random_weights(SHAPE, Vocabulary(), seed=2))
    from encoder.features import item_rows, item_seeds

    seeds, positive, first = item_seeds(0), np.arange(7) != 4, 70
    got = validate(model.eval(), histories(log), first, seeds, positive)
    ids = np.unique(log.records["item_id"])
    items = model.item_embeddings(torch.from_numpy(item_rows(ids, seeds, SHAPE.rows)))
    vectors = model.item_vectors(items)
    hits = []
    for user in range(7):
        at = np.flatnonzero(log.user_index == user)
        index = np.searchsorted(ids, log.records["item_id"][at])
        codes = torch.from_numpy(log.records["action"][at].astype(np.int64))[None]
        for i in range(1, len(at)):
            if at[i] < first or log.records["action"][at[i]] == 4:
                continue
            gaps = torch.full((1, i), 2)  # the log's events of a user are a second apart
            gaps[0, 0] = 0
            surfaces = torch.zeros(1, i, dtype=torch.long)
            tokens = model.event_tokens(items[index[:i]][None], codes[:, :i], surfaces, gaps)
            scores = (vectors @ model.encode(tokens)[0][0, -1]).numpy()
            above = [j for j in range(len(ids)) if scores[j] > scores[index[i]] and j not in set(index[:i].tolist())]
            hits.append(len(above) < 10)
    assert got.targets == len(hits)
    assert got.hr10 == pytest.approx(np.mean(hits))


# ---- checkpoints


@torch.no_grad()
def test_what_is_served_is_what_was_trained(trained: tuple[TrainReport, list[Progress]]) -> None:
    """Checkpoint, bundle, graphs and int8 against torch in full precision: the same items at the top."""
    checkpoint, bundle = load_checkpoint(trained[0].checkpoint), exported(trained[0])
    assert bundle.manifest.metrics == trained[0].metrics
    assert bundle.manifest.training["steps"] == 150
    assert bundle.manifest.training["config"]["negatives"] == 64
    np.testing.assert_array_equal(bundle.catalogue_ids, 7 * np.arange(ITEMS))
    assert bundle.catalogue_counts.sum() == 1600
    model = PinFM(checkpoint.notes.shape, checkpoint.notes.vocabulary)
    model.load_weights(checkpoint.weights)
    records = circle_log(seed=4).records[:600].reshape(24, -1).T.copy()  # (25, 24)
    tokens = bundle.features.window_tokens(records)
    hidden, _ = model.eval().encode(torch.from_numpy(tokens))
    embedding = Runtime(bundle).encode(tokens, np.full(len(tokens), 23)).embedding
    np.testing.assert_allclose(embedding, hidden[:, -1], atol=0.02)
    vectors = bundle.catalogue_vectors.astype(np.float32)
    assert ((embedding @ vectors.T).argmax(1) == (hidden[:, -1].numpy() @ vectors.T).argmax(1)).mean() > 0.9


def test_a_damaged_checkpoint_is_refused(trained: tuple[TrainReport, list[Progress]], tmp_path: Path) -> None:
    files = {name: (trained[0].checkpoint / name).read_bytes() for name in (WEIGHTS, NOTES)}

    def with_file(name: str, content: bytes | None) -> Path:
        for each, original in {**files, name: content}.items():
            if original is not None:
                (tmp_path / each).write_bytes(original)
            else:
                (tmp_path / each).unlink(missing_ok=True)
        return tmp_path

    for name in files:
        with pytest.raises(BundleError, match="slipstream train"):
            load_checkpoint(with_file(name, None))
        with pytest.raises(BundleError, match="damaged"):
            load_checkpoint(with_file(name, files[name][: len(files[name]) // 2]))
    with pytest.raises(BundleError, match="items has shape"):
        load_checkpoint(with_file(NOTES, files[NOTES].replace(b'"rows": 512', b'"rows": 511')))
    with pytest.raises(BundleError, match="version 9"):
        load_checkpoint(with_file(NOTES, files[NOTES].replace(b'"version": 1', b'"version": 9')))
    with pytest.raises(BundleError, match="slipstream train"):
        export(tmp_path / "nothing", tmp_path / "bundle")


def exported(report: TrainReport):  # type: ignore[no-untyped-def]
    out = report.checkpoint.with_name("bundle")
    export(report.checkpoint, out)
    return load_bundle(out)
