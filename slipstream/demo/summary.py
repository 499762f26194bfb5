"""What a run of the demo came to: the object that `--json` prints, and the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import Bundle
from schemas.errors import MismatchError
from schemas.log import EventLog
from slipstream.demo.freshness import RefreshLog, percentiles
from slipstream.demo.live import EmbeddingRecorder
from slipstream.demo.quality import CUTOFF, Catalogue, quality, target_ranks
from slipstream.demo.report import LagSample, ReportData, write_report
from slipstream.verify import VerifyReport
from stream.replay import ReplayReport

PROTOCOL = (
    "Quality: every replayed event is a target; all items of the catalogue are ranked by user embedding · psi(item), those "
    "that the user engaged with before are left out. Live: the embedding that could be read from Redis just before the event "
    "was sent. Frozen: the one at the split. Users without a state get the most popular items, in both; targets outside the "
    "catalogue are misses, in both. The replay runs much faster than the log's own time, so live states lack more of a user's "
    "latest events than they would in life."
)


@dataclass(frozen=True)
class Replayed:
    """What the live phase left.

    Attributes:
        began_ms: when it began, Unix ms.
        lags: samples over it.
        frozen, frozen_known: `(users, d)` and `(users,)`: embeddings at the split, and who had one.
        marks: kills, with seconds after it began.
    """

    began_ms: int
    report: ReplayReport
    refreshes: RefreshLog
    lags: list[LagSample]
    recorder: EmbeddingRecorder
    frozen: NDArray[np.float32]
    frozen_known: NDArray[np.bool_]
    marks: list[tuple[float, str]]


@dataclass(frozen=True)
class Ranks:
    """The rank of each replayed event's item, by live and by frozen embeddings: `(n,)`."""

    live: NDArray[np.float64]
    frozen: NDArray[np.float64]


def rank_targets(bundle: Bundle, replayed: Replayed, history: EventLog, live: EventLog) -> Ranks:
    catalogue = Catalogue(bundle.catalogue_ids, bundle.catalogue_vectors.astype(np.float32), bundle.catalogue_counts)
    recorder, users = replayed.recorder, live.user_index
    return Ranks(
        target_ranks(history, live, recorder.embeddings, recorder.known, catalogue),
        target_ranks(history, live, replayed.frozen[users], replayed.frozen_known[users], catalogue),
    )


def summarise(
    replayed: Replayed, checked: VerifyReport, ranks: Ranks, live: EventLog, dead_letters: int
) -> dict[str, Any]:
    """The figures of a run. Freshness in ms, from the raw event's arrival at the broker to its state being readable."""
    report = replayed.report
    live_quality, frozen_quality = quality(ranks.live), quality(ranks.frozen)
    return {
        "events_sent": report.events_sent,
        "duplicates_sent": report.duplicates_sent,
        "late_sent": report.late_sent,
        "malformed_sent": report.malformed_sent,
        "dead_letters": dead_letters,
        "kills": len(replayed.marks),
        "events_per_s": round(report.events_per_s, 1),
        "users": checked.users,
        "sequences_checked": checked.sequences_checked,
        "sequences_mismatched": checked.sequences_mismatched,
        "states_checked": checked.states_checked,
        "states_mismatched": checked.states_mismatched,
        "freshness_ms": percentiles(replayed.refreshes.freshness_ms),
        "refreshes": dict(replayed.refreshes.kinds),
        "hit_rate_at_10": {"live": live_quality.hit_rate_at_10, "frozen": frozen_quality.hit_rate_at_10},
        "ndcg_at_10": {"live": live_quality.ndcg_at_10, "frozen": frozen_quality.ndcg_at_10},
        "targets_with_state": {
            "live": int(replayed.recorder.known.sum()),
            "frozen": int(replayed.frozen_known[live.user_index].sum()),
        },
        "reads_failed": replayed.recorder.failed,
    }


def report_to(path: Path, replayed: Replayed, ranks: Ranks, summary: dict[str, Any]) -> None:
    write_report(
        path,
        ReportData(
            summary,
            (replayed.refreshes.arrived_ms - replayed.began_ms) / 1000,
            replayed.refreshes.freshness_ms,
            replayed.lags,
            ranks.live < CUTOFF,
            ranks.frozen < CUTOFF,
            PROTOCOL,
            replayed.marks,
        ),
    )


def raise_if_wrong(summary: dict[str, Any], checked: VerifyReport) -> None:
    """
    Raises:
        MismatchError: a sequence or a state is wrong, or the dead letters are not what was malformed.
    """
    wrong = [f"{m.user}: {m.what}" for m in checked.mismatches[:5]]
    if summary["dead_letters"] != summary["malformed_sent"]:
        wrong.append(
            f"{summary['malformed_sent']} malformed messages were sent, {summary['dead_letters']} are dead letters"
        )
    if wrong:
        raise MismatchError("the oracle disagrees: " + "; ".join(wrong))
