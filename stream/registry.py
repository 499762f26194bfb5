"""Where the schema registry is, and how long ingest waits for it. What it knows is asked by stream/registry_client.py.

A registry that is away must never make a dead letter: who needs it waits, with growing pauses, and gives up with an error that
ends the worker. Nothing is committed meanwhile, so nothing is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from edge.kafka import MASK
from schemas.errors import ConfigError, PrerequisiteError, UnavailableError
from schemas.formats import FRAMED, Format, Read

T = TypeVar("T")
Pause = Callable[[float], None]
logger = logging.getLogger(__name__)

#: How long one question to the registry may take, unless `timeout` of the options says otherwise.
REQUEST_TIMEOUT_S = 10.0
#: Newer clients put the schema's GUID into this header, and nothing before the value.
VALUE_HEADER = "__value_schema_id"

_SECRETS = ("password", "secret", "user.info", "token", "proxy")
_NUMBERS = ("timeout", "cache.capacity", "cache.latest.ttl.sec")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LOG_EVERY_S = 0.1, 5.0, 10.0


def masked(options: Mapping[str, str]) -> dict[str, str]:
    """Options of a registry's client that people may see: secrets are replaced."""
    return {key: MASK if any(part in key for part in _SECRETS) else value for key, value in options.items()}


@dataclass(frozen=True)
class RegistryConfig:
    """Where a schema registry is and how to log in.

    Attributes:
        url: http:// or https://, several with commas; it may hold a user and a password.
        options: of Confluent's client, such as `basic.auth.user.info` or `ssl.ca.location`. Secrets are masked when printed.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(part.strip().startswith(("http://", "https://")) for part in self.url.split(",")):
            raise ConfigError(f"schema_registry_url {self.shown_url}: it must begin with http:// or https://")

    @property
    def shown_url(self) -> str:
        """Without the password."""
        return ",".join(_without_login(part.strip()) for part in self.url.split(","))

    def __repr__(self) -> str:
        return f"RegistryConfig(url={self.shown_url!r}, options={masked(self.options)!r})"

    def client(self) -> dict[str, Any]:
        """A configuration for Confluent's client.

        Raises:
            ConfigError: an option that must be a number is none.
        """
        options: dict[str, Any] = {"timeout": REQUEST_TIMEOUT_S, **self.options}
        for name in _NUMBERS:
            try:
                options |= {name: float(options[name])} if name in options else {}
            except ValueError:
                raise ConfigError(f"schema_registry_options: {name} {options[name]!r} is not a number") from None
        return {**options, "url": self.url, "max.retries": 0}  # to try again is Patience's


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class AwayError(Exception):
    """The registry did not answer, or not as a registry does. It never leaves the stream package's reading of messages."""


class StoppedError(Exception):
    """The worker was told to stop while it waited."""


class Patience:
    """Asks again until there is an answer.

    Args:
        config: for messages.
        give_up_after_s: of waiting in a row.
        pause: waits so many seconds; it may do other things meanwhile, and end the waiting by an exception.
    """

    def __init__(self, config: RegistryConfig, give_up_after_s: float, pause: Pause = time.sleep) -> None:
        self._where = f"schema registry {config.shown_url}"
        self._give_up_after_s = give_up_after_s
        self._pause = pause

    def insist(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, sooner or later.

        Raises:
            UnavailableError: every attempt ended with AwayError for `give_up_after_s`.
        """
        began_s = logged_s = 0.0
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = ask()
            except AwayError as error:
                now = time.monotonic()
                began_s = began_s or now
                if now - began_s >= self._give_up_after_s:
                    raise UnavailableError(
                        f"{self._where}: {error}; is it running, and are `schema_registry_url` and `schema_registry_options` "
                        f"right? Nothing was committed: start again when it answers"
                    ) from None
                if not logged_s or now - logged_s > _LOG_EVERY_S:
                    logged_s = now
                    logger.warning("%s: %s; waiting for it", self._where, error)
            else:
                if began_s:
                    logger.info("%s: it answers again", self._where)
                return answer
            self._pause(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def framed_value(value: bytes | None, headers: Sequence[tuple[str, str | bytes | None]] | None) -> bytes | None:
    """A message's value with the schema's GUID before it, where a client put that into a header."""
    if value is None or not headers:
        return value
    for name, content in headers:
        if name == VALUE_HEADER and isinstance(content, bytes):
            return content + value
    return value


def require_registry(config: RegistryConfig | None, formats: Sequence[Format]) -> None:
    """Raises ConfigError if a format needs a registry and there is none to ask."""
    accepted = [name for name in formats if name in FRAMED]
    if accepted and config is None:
        raise ConfigError(f"`formats` has {', '.join(accepted)}, so `schema_registry_url` must be set")


def framed_reader(
    config: RegistryConfig | None, formats: Sequence[Format], give_up_after_s: float, pause: Pause = time.sleep
) -> Read | None:
    """What reads Avro and Protobuf for schemas.event.Parser; None if neither is accepted. The rest is as for `Patience`.

    Raises:
        ConfigError: there is no registry to ask, or its client does not take an option.
        PrerequisiteError: the extra `registry` is not installed.
    """
    require_registry(config, formats)
    accepted = [name for name in formats if name in FRAMED]
    if config is None or not accepted:
        return None
    with _needs_extra():
        from stream.framed import FramedReader
        from stream.registry_client import Schemas
    return FramedReader(Schemas(config), accepted, Patience(config, give_up_after_s, pause)).read


def framed_oracle(
    config: RegistryConfig | None, formats: Sequence[Format], give_up_after_s: float
) -> Callable[[bytes], object] | None:
    """As `framed_reader`, for the oracle."""
    require_registry(config, formats)
    accepted = [name for name in formats if name in FRAMED]
    if config is None or not accepted:
        return None
    with _needs_extra():
        from stream.oracle_framed import FramedOracle
        from stream.registry_client import Schemas
    return FramedOracle(Schemas(config), accepted, Patience(config, give_up_after_s))


@contextmanager
def _needs_extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "stream":
            raise
        raise PrerequisiteError(
            f"Avro and Protobuf need the package {error.name}: pip install 'slipstream-embeddings[registry]'"
        ) from None
