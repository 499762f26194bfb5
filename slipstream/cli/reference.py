"""docs/command-line.md: what every command does, as its own help says it.

    python -m slipstream.cli.reference > docs/command-line.md

`make docs` does this, and a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer.main

from slipstream.cli.app import app

_HEAD = """# Command line

<!-- Written by `python -m slipstream.cli.reference > docs/command-line.md`; a test compares. -->

`slipstream COMMAND --help` says the same. Where a command has `--json`, it prints one JSON object as the last line of stdout;
all that is for people goes to stderr. [Settings](settings.md) tells what the options in front of the command mean, and how
completion is installed; [operations](operations.md#exit-codes) tells the exit codes.

"""
_EXAMPLES = "Examples:\n\n"

#: click's, which some versions of typer bring inside themselves.
Command = Any
CommandContext = Any


def reference() -> str:
    """The whole page, as Markdown."""
    root = typer.main.get_command(app)
    return _HEAD + "\n".join(_sections(root, None, "slipstream"))


def _sections(command: Command, above: CommandContext | None, name: str) -> Iterator[str]:
    """A section for the command; for a group its commands' after it."""
    context = command.context_class(command, parent=above, info_name=name)
    yield _section(context, command)
    for part, its in sorted(getattr(command, "commands", {}).items()):
        yield from _sections(its, context, part)


def _section(context: CommandContext, command: Command) -> str:
    told, _, examples = (command.help or "").partition(_EXAMPLES)
    depth = context.command_path.count(" ")
    parts = [
        f"{'#' * (2 + (depth > 1))} {context.command_path}\n",
        f"{told.strip()}\n",
        f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```\n",
    ]
    if commands := [line.strip() for line in examples.splitlines() if line.strip()]:
        parts.append("```sh\n" + "".join(f"{line}\n" for line in commands) + "```\n")
    if rows := list(_rows(context, command)):
        parts.append("| option | meaning |\n| --- | --- |\n" + "".join(rows))
    return "\n".join(parts)


def _rows(context: CommandContext, command: Command) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        name, meaning = (re.sub(r"\s+", " ", text) for text in record)
        # A bar in code ends a cell, or shows its backslash, by who reads the Markdown.
        yield f"| `{name.replace('|', ', ')}` | {meaning.replace('|', chr(92) + '|')} |\n"


if __name__ == "__main__":
    print(reference(), end="")
