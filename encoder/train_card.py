"""What a training leaves for people: a model card, and a picture of its course. Made from its checkpoint and its record."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from encoder.checkpoint import CheckpointNotes, load_checkpoint
from encoder.plot_style import STYLE
from encoder.train_record import read_metrics
from schemas.errors import PrerequisiteError
from schemas.sequence import RECORD

CARD, CURVES = "card.md", "curves.svg"


def write_card(directory: Path | str) -> Path:
    """Write card.md and curves.svg beside a checkpoint. Returns the card's path.

    Raises:
        BundleError: there is no checkpoint.
        PrerequisiteError: matplotlib is not installed.
    """
    directory = Path(directory)
    checkpoint = load_checkpoint(directory)
    lines = read_metrics(directory)
    draw_curves(lines, directory / CURVES)
    parameters = sum(value.size for value in checkpoint.weights.values())
    card = directory / CARD
    card.write_text(render(checkpoint.notes, parameters, len(checkpoint.catalogue_ids)), encoding="utf-8")
    return card


def draw_curves(lines: list[dict[str, Any]], file: Path) -> None:
    """Losses, and what was measured on the validation window, over the steps, as SVG.

    Args:
        lines: of encoder.train_record.read_metrics.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise PrerequisiteError("matplotlib is missing: pip install 'slipstream-embeddings[train]'") from None
    trained, measured = ([line for line in lines if line["of"] == of] for of in ("train", "validation"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9 if measured else 4.5, 3.4))
        axes = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
        steps = [line["step"] for line in trained]
        axes[0].plot(steps, [line["loss"] for line in trained], label="next item")
        if any(line["crossing_loss"] for line in trained):
            axes[0].plot(steps, [line["crossing_loss"] for line in trained], label="crossing")
        axes[0].set_ylabel("training loss")
        axes[0].legend(frameon=False)
        if measured:
            best = max(measured, key=lambda line: line["ndcg10"])
            for name, label in (("hr10", "HR@10"), ("ndcg10", "NDCG@10")):
                axes[1].plot(
                    [line["step"] for line in measured], [line[name] for line in measured], "o-", ms=3, label=label
                )
            axes[1].axvline(best["step"], color="grey", ls=":", label="kept")
            axes[1].set_ylim(bottom=0)
            axes[1].set_ylabel("validation window")
            axes[1].legend(frameon=False)
        for axis in axes:
            axis.set_xlabel("step")
        figure.savefig(file, format="svg", metadata={"Date": None})


def render(notes: CheckpointNotes, parameters: int, items: int) -> str:
    """The card as Markdown."""
    t, shape, config = notes.training, notes.shape, notes.training["config"]
    parts = [
        f"# PinFM, {shape.layers} layers of {shape.d_model}",
        "Embeds a user's newest engagements, and scores items against them. Trained by `slipstream train`.",
        "## Data",
        _table(
            {
                "source": config.get("source") or "not named",
                "events": f"{t['log_events']:,} of {t['log_users']:,} users with {items:,} items",
                "trained on": f"{t['events']:,} events of {t['users']:,} users with {t['items']:,} items",
                "from": _date(t["first_event_ms"]),
                "to": _date(t["last_event_ms"]),
                "fingerprint": t["log_fingerprint"],
            }
        ),
        "## Protocol",
        _protocol(config["held_out"], config["validation"]),
        "## Metrics",
        _metrics(notes),
        "![Losses and metrics by step](curves.svg)",
        "## Training",
        _table(
            {
                "steps": f"{t['steps']:,}",
                "seconds": f"{t['seconds']:,}",
                "loss at the end": f"{t['loss']:.4f}, crossing {t['crossing_loss']:.4f}",
                **({"step kept": f"{t['validated']['step']:,}"} if "validated" in t else {}),
            }
        ),
        "## Sizes",
        _table(
            {
                "parameters": f"{parameters:,}, of which item tables {shape.rows * shape.d_model:,}",
                "heads": f"{shape.heads}, of keys and values {shape.kv_heads}",
                "context": f"{shape.context} events",
                "bytes of a state's event": f"{RECORD.itemsize + shape.kv_bytes + shape.scale_bytes}",
                "rows of an item sub-table": f"{shape.rows:,}",
            }
        ),
        "## Configuration",
        _table({name: value for name, value in config.items() if name != "source"}),
    ]
    return "\n\n".join(parts) + "\n"


def _protocol(held_out: float, validation: float) -> str:
    if not held_out and not validation:
        return "All of the log was trained on."
    said = ["Split by order of arrival:"]
    if held_out:
        said.append(f"the last {held_out:.1%} of the log was held out and measured once, at the end.")
    if validation:
        said.append(f"The {validation:.1%} before that was not trained on either and chose the step that was kept.")
    said.append(
        "An event is a target if a model should foresee it and its user has an event before it. All items are ranked for it but "
        "those of the user's window before it. Intervals are 95%, over users; of more than 500 users, those with the newest "
        "events are measured. `slipstream evaluate` measures more, beside harder baselines."
    )
    return " ".join(said)


def _metrics(notes: CheckpointNotes) -> str:
    m = notes.metrics
    if not m:
        return "Nothing was held out."
    rows = [
        f"| of {m['targets']:,} targets of {m['users']:,} users | HR@10 | NDCG@10 |",
        "|---|---|---|",
        f"| this model | {m['hr10']:.4f} ± {m['hr10_pm']:.4f} | {m['ndcg10']:.4f} ± {m['ndcg10_pm']:.4f} |",
        f"| popularity | {m['popularity_hr10']:.4f} | {m['popularity_ndcg10']:.4f} |",
    ]
    validated = notes.training.get("validated")
    if validated:
        rows.append(
            f"| this model, on {validated['targets']} targets of the validation window | {validated['hr10']:.4f} "
            f"| {validated['ndcg10']:.4f} |"
        )
    return "\n".join(rows)


def _table(values: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in values.items())])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "none"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _date(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
