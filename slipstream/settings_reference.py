"""docs/settings.md: what every setting means, as the settings themselves say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from slipstream.settings import ENV_PREFIX, Settings

_HEAD = """# Settings

<!-- Written by `slipstream config reference > docs/settings.md`; a test compares. -->

Every command takes its settings from, in this order: its options, the environment (`{prefix}...`), a TOML file, defaults. The
file is the one of `--config` or `{prefix}CONFIG`, else `slipstream.toml` in the working directory, if it is there. An unknown
key, or a value that cannot be, ends the command with exit code 2 and is named. `slipstream config show` lists what applies, and
from where; secrets are masked.

Lists and tables are JSON in the environment (`{prefix}PROVIDERS='["cuda", "cpu"]'`). A table that is given in several places is
merged, key by key. An empty variable counts as not set.

**Shell completion** of commands and options, for bash, zsh, fish and PowerShell: `slipstream --install-completion`, then open a
new shell. `slipstream --show-completion` prints the script instead, for a file that you manage yourself.

| setting | variable | values | default | meaning |
| --- | --- | --- | --- | --- |
"""


def reference() -> str:
    """The whole page, as Markdown."""
    properties: Mapping[str, Any] = Settings.model_json_schema()["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        secret = " (secret)" if SecretStr in getattr(field.annotation, "__args__", ()) else ""
        of = properties[name]
        cells = (
            f"`{name}`",
            f"`{ENV_PREFIX}{name.upper()}`",
            _values(of) + secret,
            _default(of),
            field.description or "",
        )
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
    return _HEAD.format(prefix=ENV_PREFIX) + "".join(rows)


def _values(of: Mapping[str, Any]) -> str:
    if "anyOf" in of:  # it may be unset
        return _values(of["anyOf"][0])
    if "enum" in of:
        return ", ".join(f"`{value}`" for value in of["enum"])
    if of["type"] == "array":
        return f"list of {'texts' if 'enum' not in of['items'] else _values(of['items'])}"
    if of["type"] == "boolean":
        return "`true`, `false`"
    if of["type"] == "object":
        return "table of texts"
    if of["type"] in ("integer", "number"):
        least, most = of.get("minimum"), of.get("maximum")
        return (
            f"{least:,} to {most:,}" if most is not None else f"{least:,} or more" if least is not None else of["type"]
        )
    return "path" if of.get("format") == "path" else "text"


def _default(of: Mapping[str, Any]) -> str:
    value = of.get("default")
    if value is None:
        return "none" if "anyOf" in of else "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return ", ".join(f"`{part}`" for part in value) if isinstance(value, list) else f"`{value}`"
