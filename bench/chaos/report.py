"""What a run came to: figures, and in words what is wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from bench.chaos.judge import Verdict, tracebacks, unexplained
from bench.chaos.played import ChaosConfig, Played
from bench.chaos.states import StatesVerdict
from bench.result import Result
from schemas.errors import FencedError

SHOWN_MISMATCHES = 10


@dataclass(frozen=True)
class Outcome:
    """A result, and what is wrong with it: nothing, if all is well.

    Attributes:
        mismatches: user and what is wrong, of sequences and states.
    """

    result: Result
    problems: list[str]
    mismatches: list[tuple[bytes, str]]
    work_dir: Path

    def describe(self) -> str:
        """For people: what is wrong, the first that differ, and where the logs are."""
        lines = [
            f"{self.result.bench}, seed {self.result.config['seed']}:",
            *(f"  {problem}" for problem in self.problems),
        ]
        lines += [f"  user {user.decode()}: {what}" for user, what in self.mismatches[:SHOWN_MISMATCHES]]
        return "\n".join([*lines, f"  logs, and Kafka's data: {self.work_dir}"])


def outcome(
    config: ChaosConfig, played: Played, verdict: Verdict, states: StatesVerdict | None, work_dir: Path
) -> Outcome:
    result = _result(config, played, verdict, states)
    return Outcome(result, problems_of(played, verdict, states), mismatches_of(verdict, states), work_dir)


def mismatches_of(verdict: Verdict, states: StatesVerdict | None) -> list[tuple[bytes, str]]:
    """User and what is wrong, of sequences and states."""
    return [(m.user, m.what) for m in (*verdict.mismatches, *(states.differing if states else ()))]


def problems_of(played: Played, verdict: Verdict, states: StatesVerdict | None) -> list[str]:
    """Everything that is wrong, in words."""
    fleet, broker = played.fleet, played.broker
    redis_absences = played.states.redis.absences if played.states else []
    return [
        *verdict.problems,
        *(states.problems if states else []),
        *played.problems,
        *played.done.problems,
        *unexplained(fleet.exits, broker.absences, broker.refusals, redis_absences),
        *tracebacks(fleet.logs()),
    ]


def _result(config: ChaosConfig, played: Played, verdict: Verdict, states: StatesVerdict | None) -> Result:
    fleet, done = played.fleet, played.done
    figures: dict[str, float | int | None] = {
        "events": played.flow.events,
        "messages": verdict.messages,
        "kills": done.kills,
        "broker_kills": done.broker_kills,
        "broker_freezes": done.broker_freezes,
        "full_disks": done.full_disks,
        "refused_produces": done.refusals,
        "rebalances": fleet.rebalances(),
        "zombies": done.zombies + done.directed,
        "fenced": sum(end.code == FencedError.exit_code for end in fleet.exits),
        "sequences": verdict.sequences,
        "sequences_differing": len(verdict.mismatches),
        "events_lost": verdict.events_lost,
        "dead_letters": verdict.malformed,
    }
    details: dict[str, object] = {}
    if played.states and states:
        parts = played.states
        figures |= {
            "redis_faults": parts.faults.done.total(),
            "states": states.states,
            "states_differing": len(states.differing),
            "states_remade": states.remade,
        }
        details |= {
            "redis_faults": {str(kind): times for kind, times in parts.faults.done.items()},
            "redis_away_s": [round(back - went, 1) for went, back in parts.redis.absences],
            "states_evicted": len(parts.redis.evicted),
            "states_damaged": len(parts.damage.users),
            "damage_seen_by_encoders": fleet.said("it is made anew"),
            "losses_seen_by_encoders": fleet.said("Redis lost states"),
        }
    figures |= {
        "flow_s": played.flow_s,
        "catch_up_s": played.catch_up_s,
        "peak_rss_mb": max(memory["peak"] for memory in played.memory_mb.values()),
        "rss_growth_broker_away_mb": max(fleet.growth_mb.values(), default=None),
    }
    details |= {
        "schedule": [fault.as_json() for fault in played.schedule],
        "left_out": done.left_out,
        "exits": fleet.exit_codes(),
        "rss_mb": played.memory_mb,
        "rss_growth_broker_away_mb": {worker: round(mb, 1) for worker, mb in fleet.growth_mb.items()},
        "broker_away_s": [round(back - went, 1) for went, back in played.broker.absences],
        "directed_zombie_batches": done.batches_in_hand,
        "dead_letters_written": verdict.dead_letters,
    }
    return Result("chaos", figures, asdict(config), details)
