"""What to think of a Kafka cluster and a deployment's topics on it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from schemas.errors import SlipstreamError, UnavailableError
from schemas.names import Names
from slipstream.doctor.finding import Finding, Level
from stream.topics import DAY_MS, plan_topics, require_equal_partitions

REACH, TOPICS, PARTITIONS, SETTINGS, CLOCK = (
    "kafka",
    "topics",
    "partitions",
    "topic settings",
    "kafka clock",
)
_FOREVER = "-1"


class ReachFacts(NamedTuple):
    """
    Attributes:
        security: protocol, and who logs in how; no secret.
        bootstrap: why a TCP connection to an address of the settings fails, "" if it does not; by address.
        error: why Kafka does not answer, if a connection is there.
        advertised: as `bootstrap`, of the addresses at which the brokers say that they are.
    """

    security: str
    bootstrap: Mapping[str, str]
    error: SlipstreamError | None
    advertised: Mapping[str, str]


def judge_reach(facts: ReachFacts) -> Finding:
    away = [f"{address}: {why}" for address, why in facts.bootstrap.items() if why]
    details = {"security": facts.security, "brokers": len(facts.advertised)}
    if len(away) == len(facts.bootstrap):
        advice = "start Kafka, or correct host and port of `kafka_bootstrap`"
        return Finding(REACH, Level.FAIL, f"nothing takes connections at {'; '.join(away)}", advice, details)
    if facts.error is not None:
        listens = (
            "something listens there: is it Kafka, and is `security.protocol` of `kafka_options` what this port speaks?"
        )
        advice = f"{listens} Now: {facts.security}" if isinstance(facts.error, UnavailableError) else ""
        return Finding(REACH, Level.FAIL, str(facts.error), advice, details)
    if lost := [f"{address}: {why}" for address, why in facts.advertised.items() if why]:
        found = f"Kafka sends its clients to brokers that cannot be reached from here: {'; '.join(lost)}"
        return Finding(
            REACH, Level.FAIL, found, "correct the brokers' advertised.listeners, or names and routes", details
        )
    count = len(facts.advertised)
    found = f"{count} broker{'' if count == 1 else 's'}, by {', '.join(facts.bootstrap)}, {facts.security}"
    if away:
        advice = "correct or leave out these addresses of `kafka_bootstrap`: a client may try one of them first"
        return Finding(REACH, Level.WARN, f"{found}; but not by {'; '.join(away)}", advice, details)
    return Finding(REACH, Level.OK, found, details=details)


def judge_topics(names: Names, counts: Mapping[str, int], other_prefixes: list[str]) -> Finding:
    """
    Args:
        counts: partitions of those of the four topics that are there.
        other_prefixes: of which this user sees a deployment on the same cluster.
    """
    wanted = [plan.name for plan in plan_topics(names, 1)]
    details = {"partitions": dict(counts)}
    if missing := [name for name in wanted if name not in counts]:
        there = f" (there are deployments of the prefixes {', '.join(other_prefixes)})" if other_prefixes else ""
        advice = f"run `slipstream topics create`, or correct the `prefix` {names.prefix!r}{there}"
        return Finding(TOPICS, Level.FAIL, f"missing: {', '.join(missing)}", advice, details)
    listed = ", ".join(f"{name.removeprefix(names.prefix + '.')} {count}" for name, count in counts.items())
    return Finding(TOPICS, Level.OK, f"all four, partitions: {listed}", details=details)


def judge_partitions(names: Names, counts: Mapping[str, int]) -> Finding:
    """
    Raises:
        TopicError: they differ.
    """
    require_equal_partitions(names, counts)
    return Finding(PARTITIONS, Level.OK, f"{counts[names.sequences]} of engagement-batches and of sequences")


def judge_settings(names: Names, configs: Mapping[str, Mapping[str, str] | None]) -> Finding:
    """
    Args:
        configs: of the topics that are there; None where this user may not see them.
    """
    hidden = [name for name, config in configs.items() if config is None]
    seen = {name: config for name, config in configs.items() if config is not None}
    broken: list[str] = []
    doubtful = (
        [f"settings of {', '.join(hidden)} are hidden from this user (it lacks DescribeConfigs)"] if hidden else []
    )
    for plan in plan_topics(names, 1):
        if (config := seen.get(plan.name)) is not None:
            losing, other = _differences(config, plan.config)
            broken += [f"{plan.name}: {what}" for what in losing]
            doubtful += [f"{plan.name}: {what}" for what in other]
    advice = "set it with Kafka's kafka-configs; `slipstream topics create` makes new topics right"
    details = {"settings": {name: dict(config) for name, config in seen.items()}}
    if broken or doubtful:
        return Finding(SETTINGS, Level.FAIL if broken else Level.WARN, "; ".join([*broken, *doubtful]), advice, details)
    return Finding(SETTINGS, Level.OK, _kept(names, seen), details=details)


def _differences(config: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What loses data, and what may do harm."""
    broken, doubtful = [], []
    policy = config["cleanup.policy"]
    if policy != wanted["cleanup.policy"]:
        loses = "events that share a key" if "compact" in policy else "sequences that are not written for a while"
        broken.append(f"cleanup.policy is {policy}, not {wanted['cleanup.policy']}: it loses {loses}")
    retention = config["retention.ms"]
    if wanted["cleanup.policy"] == "delete" and retention != _FOREVER and int(retention) < DAY_MS:
        doubtful.append(f"retention.ms {retention} is less than a day: a longer outage loses events")
    clock = config["message.timestamp.type"]
    if clock != wanted.get("message.timestamp.type", clock):
        doubtful.append(f"message.timestamp.type is {clock}: freshness is measured from arrival times of another clock")
    most, needed = config["max.message.bytes"], wanted["max.message.bytes"]
    if int(most) < int(needed):
        doubtful.append(
            f"max.message.bytes {most} is less than {needed}: a large message stops the stage that writes it"
        )
    return broken, doubtful


def _kept(names: Names, configs: Mapping[str, Mapping[str, str]]) -> str:
    def days(topic: str) -> str:
        retention = configs[topic]["retention.ms"]
        return "for ever" if retention == _FOREVER else f"{int(retention) / DAY_MS:.3g} days"

    if names.engagements not in configs or names.batches not in configs:
        return "as they should be, of the topics that are there"
    return f"events are kept {days(names.engagements)}, batches {days(names.batches)}, sequences compacted"
