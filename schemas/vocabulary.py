"""Names of actions and surfaces, and the codes that records carry for them.

A code is a name's index in its tuple. Codes are stored in sequences and in trained tables, so a vocabulary only ever grows at
its end; code 0 is `other`, which a model gives to every code that it was not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import msgspec

from schemas.errors import ConfigError

OTHER = "other"
MAX_CODES = 1 << 16  # a record stores a code as u16

DEFAULT_ACTIONS = (OTHER, "view", "click", "like", "save", "share", "hide")
DEFAULT_SURFACES = (OTHER, "home", "search", "related", "profile", "notification")


class Vocabulary(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """The actions and surfaces of a deployment.

    Raises:
        ConfigError: a vocabulary does not begin with `other`, repeats a name, or is too long.
    """

    actions: tuple[str, ...] = DEFAULT_ACTIONS
    surfaces: tuple[str, ...] = DEFAULT_SURFACES

    def __post_init__(self) -> None:
        for kind, names in (("actions", self.actions), ("surfaces", self.surfaces)):
            if not names or names[0] != OTHER:
                raise ConfigError(
                    f"{kind} must begin with {OTHER!r}, code 0, which stands for unknown names: got {names[:1]}"
                )
            if len(set(names)) != len(names) or not all(names):
                raise ConfigError(f"{kind} must be distinct and not empty: got {names}")
            if len(names) > MAX_CODES:
                raise ConfigError(f"{kind} has {len(names)} names, a record can tell {MAX_CODES} apart")

    def action_name(self, code: int) -> str:
        """For people, also of a code that the vocabulary does not have."""
        return _name(self.actions, code)

    def surface_name(self, code: int) -> str:
        """Likewise."""
        return _name(self.surfaces, code)

    @cached_property
    def action_codes(self) -> Mapping[str, int]:
        return {name: code for code, name in enumerate(self.actions)}

    @cached_property
    def surface_codes(self) -> Mapping[str, int]:
        return {name: code for code, name in enumerate(self.surfaces)}

    def require_prefix_of(self, newer: Vocabulary, where: str) -> None:
        """Check that each of our codes means the same in `newer`, which may know more names.

        Raises:
            ConfigError: a code changed its meaning; states made from both would be wrong without anyone noticing.
        """
        for kind, ours, theirs in (
            ("actions", self.actions, newer.actions),
            ("surfaces", self.surfaces, newer.surfaces),
        ):
            if theirs[: len(ours)] != ours:
                raise ConfigError(
                    f"{where}: {kind} are {theirs}, which does not begin with {ours}: codes are positions, so names may only "
                    "be added at the end; restore the order, or train a model on the new vocabulary"
                )


def _name(names: tuple[str, ...], code: int) -> str:
    return names[code] if code < len(names) else f"code {code}"
