"""`slipstream config`: the settings, where they come from, and what they mean."""

from __future__ import annotations

import typer
from rich.table import Table

from edge.kafka import masked
from slipstream.cli.context import context
from slipstream.cli.stages import Json
from slipstream.settings import setting_sources
from slipstream.settings_reference import reference
from stream.registry import masked as masked_registry

config = typer.Typer(help="The settings.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(config, name="config")


@config.command("show")
def _show(command: typer.Context, json: Json = False) -> None:
    """Show every setting: its value, where that comes from, and what it means. Secrets are masked.

    Examples:

      slipstream config show

      SLIPSTREAM_PARTITIONS=16 slipstream config show --json
    """
    ctx = context(command)
    settings = ctx.settings
    values = settings.model_dump(mode="json")
    values["kafka_options"] = masked(settings.kafka_options)
    values["schema_registry_options"] = masked_registry(settings.schema_registry_options)
    sources = setting_sources(ctx.config, ctx.flags)
    if json:
        ctx.emit({name: {"value": value, "source": ", ".join(sources[name])} for name, value in values.items()})
        return
    table = Table("setting", "value", "from", "meaning")
    for name, field in type(settings).model_fields.items():
        table.add_row(name, str(values[name]), ", ".join(sources[name]), field.description)
    ctx.console.print(table)


@config.command("reference")
def _reference() -> None:
    """Print the page of the documentation that tells what every setting means, docs/settings.md, as Markdown.

    Examples:

      slipstream config reference > docs/settings.md
    """
    print(reference(), end="")
