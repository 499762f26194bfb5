"""What to think of a Redis that keeps states. Pure: figures are those of its INFO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from slipstream.doctor.finding import Finding, Level

REACH, MEMORY, PERSISTENCE, CLOCK, ACTIVE, STATES = (
    "redis",
    "redis memory",
    "redis persistence",
    "redis clock",
    "active model",
    "states",
)
LEAST_VERSION = (6, 2)
#: Of its memory that is in use.
_NEARLY_FULL = 0.9

Info = Mapping[str, Any]
#: Put into a node's Info beside what INFO says: the setting `save`, if this user may see it.
SAVE = "save"


class StateFacts(NamedTuple):
    """
    Attributes:
        looked_at: states of the model that were read.
        wrong: what is wrong with some of them, and with how many.
    """

    looked_at: int
    wrong: Mapping[str, int]


def judge_reach(nodes: Mapping[str, Info], as_cluster: bool = False) -> Finding:
    """
    Args:
        nodes: INFO by address; of a cluster, of each primary.
        as_cluster: the URL says that it is one.
    """
    old = [f"{at} is {info['redis_version']}" for at, info in nodes.items() if _version(info) < LEAST_VERSION]
    replicas = [at for at, info in nodes.items() if info.get("role") != "master"]
    loading = [at for at, info in nodes.items() if int(info.get("loading", 0))]
    said = ", ".join(f"Redis {info['redis_version']} at {at}" for at, info in nodes.items())
    if old:
        return Finding(REACH, Level.FAIL, "; ".join(old), "Redis 6.2 or later is needed")
    if replicas:
        advice = "point `redis_url` at the primary: a replica takes no writes"
        return Finding(REACH, Level.FAIL, f"{', '.join(replicas)} is a replica", advice)
    if any(int(info.get("cluster_enabled", 0)) for info in nodes.values()) and not as_cluster:
        advice = "write the `redis_url` as redis+cluster://..., or rediss+cluster://..."
        return Finding(
            REACH, Level.FAIL, f"{said}, a node of a cluster: it takes the keys of its own slots alone", advice
        )
    if loading:
        return Finding(REACH, Level.WARN, f"{', '.join(loading)} loads its data", "wait until it is there")
    return Finding(REACH, Level.OK, said, details={"nodes": len(nodes)})


def judge_memory(nodes: Mapping[str, Info], state_ttl_s: int) -> Finding:
    return _worst(MEMORY, [_memory(at, info, state_ttl_s) for at, info in nodes.items()])


def judge_persistence(nodes: Mapping[str, Info]) -> Finding:
    return _worst(PERSISTENCE, [_persistence(at, info) for at, info in nodes.items()])


def judge_active(active: str | None, ours: str | None) -> Finding:
    """
    Args:
        active: the model that rankers read, as Redis says.
        ours: the model of the bundle; None if there is none that can be read.
    """
    details = {"active": active, "bundle": ours}
    if active is None:
        advice = "the first encoder that starts names its own; or `slipstream model activate MODEL`"
        return Finding(ACTIVE, Level.WARN, "none: rankers that ask which model to read get no answer", advice, details)
    if ours is not None and active != ours:
        advice = (
            "in a roll-over that is so until `slipstream model activate`; else `bundle` is another model's directory"
        )
        return Finding(ACTIVE, Level.WARN, f"rankers read {active}, the bundle is {ours}", advice, details)
    return Finding(ACTIVE, Level.OK, f"{active}" + (", the bundle's" if ours else ""), details=details)


def judge_states(facts: StateFacts) -> Finding:
    details = {"looked_at": facts.looked_at, "wrong": dict(facts.wrong)}
    if not facts.looked_at:
        advice = (
            "an encoder writes them as it reads the changelog: does one run? `slipstream model status` shows its lag"
        )
        return Finding(STATES, Level.WARN, "none of the bundle's model", advice, details)
    if facts.wrong:
        found = "; ".join(f"{count} of {facts.looked_at}: {what}" for what, count in facts.wrong.items())
        advice = (
            "encoders make them anew with each user's next event; `slipstream verify --repair` makes all anew at once"
        )
        return Finding(STATES, Level.FAIL, found, advice, details)
    return Finding(STATES, Level.OK, f"{facts.looked_at} looked at, all of them readable", details=details)


def _version(info: Info) -> tuple[int, ...]:
    return tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])


def _memory(at: str, info: Info, state_ttl_s: int) -> Finding:
    used = int(info["used_memory"]) - int(info.get("mem_not_counted_for_evict", 0))
    limit, policy = int(info["maxmemory"]), str(info["maxmemory_policy"])
    machine = int(info.get("total_system_memory", 0))
    details = {"used_bytes": used, "maxmemory_bytes": limit, "policy": policy}
    shown = f"{at}: {_mib(used)} of {_mib(limit or machine)} in use, {policy}"
    ttl = "let states expire (`state_ttl_s`)"
    evicts_states = policy.startswith("allkeys") or (policy.startswith("volatile") and state_ttl_s)
    if limit and used >= limit and not evicts_states:
        advice = f"raise its maxmemory, or {ttl}, or give it more nodes: encoders wait meanwhile"
        return Finding(MEMORY, Level.FAIL, f"out of memory, it refuses writes: {shown}", advice, details)
    if policy.startswith("allkeys"):
        advice = f"set maxmemory-policy to noeviction, or to volatile-ttl and {ttl}"
        found = f"when it is full it evicts states, and the name of the active model too: {shown}"
        return Finding(MEMORY, Level.WARN, found, advice, details)
    if (limit or machine) and used >= _NEARLY_FULL * (limit or machine):
        advice = f"raise {'its maxmemory' if limit else 'the memory of its machine'}, or {ttl}"
        return Finding(MEMORY, Level.WARN, f"nearly full: {shown}", advice, details)
    if not limit:
        shown = f"{at}: {_mib(used)} in use, no maxmemory (the machine has {_mib(machine)})"
    return Finding(MEMORY, Level.OK, shown, details=details)


def _persistence(at: str, info: Info) -> Finding:
    snapshot, log = info.get("rdb_last_bgsave_status", "ok"), info.get("aof_last_write_status", "ok")
    if snapshot != "ok" or log != "ok":
        what = "snapshot" if snapshot != "ok" else "append-only file"
        advice = (
            "look at its log and its disk: with stop-writes-on-bgsave-error, which is the default, it refuses writes"
        )
        return Finding(PERSISTENCE, Level.FAIL, f"{at}: its last {what} failed", advice)
    kept = {None: "snapshots not known", "": "no snapshots"}.get(info.get(SAVE), "snapshots")
    if int(info.get("aof_enabled", 0)):
        kept = "append-only file"
    return Finding(PERSISTENCE, Level.OK, f"{at}: {kept}; what gets lost comes back from the changelog")


def _worst(check: str, findings: Iterable[Finding]) -> Finding:
    """The findings of all nodes as one."""
    order = (Level.OK, Level.WARN, Level.FAIL)
    found = list(findings)
    worst = max(found, key=lambda finding: order.index(finding.level))
    if worst.level is Level.OK:
        return Finding(check, Level.OK, "; ".join(f.found for f in found), details=worst.details)
    return worst


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
