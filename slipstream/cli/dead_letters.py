"""`slipstream dead-letters list`, `show`, `replay`, `drop`: what could not be read, and what to do with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from schemas.errors import ConfigError, TopicError
from slipstream.cli.context import EXIT_INTERRUPTED, Context, context
from slipstream.cli.letters_view import print_letter, print_replay, print_report, summary
from slipstream.cli.stages import Json, kafka
from slipstream.cli.times import time_ms
from stream.dead_letters import REASONS
from stream.letters import DeadLetter, Place, Spans, all_letters, read_letter, read_letters
from stream.letters_drop import count_by_reason, drop, spans_before, spans_up_to
from stream.letters_marks import Marks
from stream.letters_replay import replay_letters, replay_places, why_unfit
from stream.letters_report import report_on

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only letters of this reason; repeatable [default: every reason]")
]

letters = typer.Typer(
    help="What could not be read: look at it, send it again, remove it.", no_args_is_help=True, rich_markup_mode=None
)


def register(app: typer.Typer) -> None:
    app.add_typer(letters, name="dead-letters")


@letters.command("list")
def _list(
    command: typer.Context,
    reason: Reasons = None,
    since: Annotated[str | None, typer.Option(help="Buried since then: ISO 8601, or 90s, 15m, 6h, 2d ago")] = None,
    until: Annotated[str | None, typer.Option(help="Buried before then, likewise")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Newest letters to list after the counts")] = 20,
    json: Json = False,
) -> None:
    """Count dead letters by reason and source topic, and list the newest of them.

    The place in the first column, PARTITION:OFFSET, is what the other commands take. What each reason means and what to do about
    it: docs/operations.md.

    Examples:

      slipstream dead-letters list

      slipstream dead-letters list --reason unknown_action --since 6h --limit 100

      slipstream dead-letters list --since 2026-01-31T12:00:00Z --json
    """
    ctx = context(command)
    cluster, names = kafka(ctx), ctx.settings.names
    since_ms, until_ms = _time_ms("--since", since), _time_ms("--until", until)
    spans = all_letters(cluster, names, since_ms)
    marks = Marks(cluster, names)

    def was_replayed(letter: DeadLetter) -> bool:
        return not why_unfit(letter, names) and marks.is_behind(letter)

    report = report_on(
        _each(ctx, spans), was_replayed, limit, _checked_reasons(reason), since_ms or 0, until_ms or 1 << 62
    )
    if json:
        ctx.emit(
            {
                "letters": report.letters,
                "counts": [
                    {"reason": of, "topic": topic, **vars(count)} for (of, topic), count in report.counts.items()
                ],
                "newest": [summary(letter) for letter in report.newest],
            }
        )
    else:
        print_report(ctx, report)


@letters.command("show")
def _show(
    command: typer.Context,
    place: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="As `list` prints it")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the message's value, byte for byte, on stdout")] = False,
    json: Json = False,
) -> None:
    """Show a dead letter: what was wrong, where the message came from, its headers, its key and its value.

    What cannot be printed is escaped, and a long value cut. In JSON, key, value and headers are base64.

    Examples:

      slipstream dead-letters show 2:17

      slipstream dead-letters show 2:17 --raw > message.bin
    """
    ctx = context(command)
    if raw and json:
        raise ConfigError("--raw and --json are two ways to print a letter: give one of them")
    letter = read_letter(kafka(ctx), ctx.settings.names, Place.parse(place))
    if raw:
        if letter.value is None:
            ctx.say("the letter has no value")
        sys.stdout.buffer.write(letter.value or b"")
        sys.stdout.buffer.flush()
    elif json:
        ctx.emit(
            {
                **summary(letter),
                "key_base64": letter.key,
                "value_base64": letter.value,
                "headers_base64": [[name, value] for name, value in (letter.said.original if letter.said else ())],
            }
        )
    else:
        print_letter(ctx, letter)


@letters.command("replay")
def _replay(
    command: typer.Context,
    places: Annotated[list[str] | None, typer.Argument(metavar="PARTITION:OFFSET", help="Just these letters")] = None,
    reason: Reasons = None,
    everything: Annotated[bool, typer.Option("--all", help="Letters of every reason")] = False,
    again: Annotated[bool, typer.Option("--again", help="Those too that were replayed before")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing")] = False,
    json: Json = False,
) -> None:
    """Send dead letters back to the topic and partition that they came from, after what was wrong has been put right.

    Raw events go through ingest again, batches through the sequence stage: value, key and headers as they were, and a header
    `slipstream-replays` that counts. What fails again becomes a dead letter again, and `list` shows it as repeated.

    The next replay goes on where this one ended: that is kept per reason, as committed offsets of the group
    PREFIX-dead-letters-REASON. After a kill it sends some letters once more, which changes nothing: an event counts once.

    Examples:

      slipstream dead-letters replay --reason unknown_action --dry-run

      slipstream dead-letters replay --reason unknown_action --reason unknown_surface

      slipstream dead-letters replay 2:17 0:4

      slipstream dead-letters replay --all
    """
    ctx = context(command)
    if sum((bool(places), bool(reason), everything)) != 1:
        raise ConfigError(
            "say which letters to replay: places as PARTITION:OFFSET, or --reason, or --all for every reason"
        )
    cluster, names = kafka(ctx), ctx.settings.names
    if places:
        report = replay_places(cluster, names, [Place.parse(place) for place in places], dry_run=dry_run)
    else:
        report = replay_letters(
            cluster, names, None if everything else _checked_reasons(reason), again=again, dry_run=dry_run
        )
    if json:
        ctx.emit(
            {
                "dry_run": dry_run,
                "sent": [{"reason": of, "topic": topic, "letters": n} for (of, topic), n in report.sent.items()],
                "replayed_before": report.passed,
                "unfit": dict(report.unfit),
                "refused": [{"place": str(place), "why": why} for place, why in report.refused],
            }
        )
    else:
        print_replay(ctx, report, dry_run)
    if report.refused:
        raise TopicError(
            f"{len(report.refused)} letters were refused by their topics: compare its max.message.bytes with them"
        )


@letters.command("drop")
def _drop(
    command: typer.Context,
    before: Annotated[str | None, typer.Option(help="Buried before then: ISO 8601, or 90s, 15m, 6h, 2d ago")] = None,
    up_to: Annotated[
        str | None, typer.Option(metavar="PARTITION:OFFSET", help="This letter and all before it in its partition")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are there now")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    json: Json = False,
) -> None:
    """Remove dead letters for good, oldest first: Kafka removes nothing out of the middle. Asks before it does.

    Without it they go when the topic's retention says so (30 days, as `topics create` makes it).

    Examples:

      slipstream dead-letters drop --before 7d

      slipstream dead-letters drop --up-to 2:17

      slipstream dead-letters drop --all --yes
    """
    ctx = context(command)
    if sum((before is not None, up_to is not None, everything)) != 1:
        raise ConfigError("say which letters to drop: --before TIME, or --up-to PARTITION:OFFSET, or --all")
    cluster, names = kafka(ctx), ctx.settings.names
    if up_to is not None:
        spans = spans_up_to(cluster, names, Place.parse(up_to))
    else:
        spans = spans_before(cluster, names, _time_ms("--before", before))
    counts = count_by_reason(cluster, names, spans)
    listed = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common()) or "none"
    if counts and not yes:
        ctx.say(f"{counts.total():,} letters of topic {names.dead_letters} would be gone for good: {listed}")
        try:
            agreed = typer.confirm("Remove them?", err=True)
        except typer.Abort:  # Ctrl-C, or nobody is there to answer
            ctx.say("nothing removed: --yes removes without asking")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        if not agreed:
            ctx.say("nothing removed")
            return
    begins = drop(cluster, names, spans)
    if json:
        ctx.emit({"removed": dict(counts), "begins_at": {str(p): offset for p, offset in sorted(begins.items())}})
    else:
        ctx.say(f"removed {counts.total():,} letters: {listed}")


def _each(ctx: Context, spans: Spans) -> Iterator[DeadLetter]:
    for chunk in read_letters(kafka(ctx), ctx.settings.names, spans):
        yield from chunk


def _checked_reasons(reasons: list[str] | None) -> list[str]:
    for reason in reasons or ():
        if reason not in REASONS:
            raise ConfigError(f"--reason {reason}: there is no such reason; they are {', '.join(sorted(REASONS))}")
    return reasons or []


def _time_ms(option: str, text: str | None) -> int | None:
    return None if text is None else time_ms(option, text)
