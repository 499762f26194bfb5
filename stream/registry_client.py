"""Confluent's registry client, with its failures told apart: no such schema, or no answer.

Needs the extra `registry`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaRegistryClient, SchemaRegistryError

from schemas.errors import ConfigError
from stream.registry import AwayError, RegistryConfig

T = TypeVar("T")

#: A schema that the registry did not know is asked for again after so long.
UNKNOWN_FOR_S = 30.0
_MOST_UNKNOWN = 10_000
_MAX_ID = (1 << 31) - 1
FRAME_BYTES = {0: 5, 1: 17}
"""By the first byte: it and an id, or it and a GUID."""


class NoSchemaError(Exception):
    """The registry answered, and does not know the schema."""


class Client(SchemaRegistryClient):
    """Raises NoSchemaError or AwayError where Confluent's client raises whatever went wrong. What it was told it remembers."""

    def get_schema(self, *arguments: Any, **more: Any) -> Schema:
        return self._checked(self._asked(lambda: super(Client, self).get_schema(*arguments, **more)))

    def get_schema_by_guid(self, *arguments: Any, **more: Any) -> Schema:
        return self._checked(self._asked(lambda: super(Client, self).get_schema_by_guid(*arguments, **more)))

    def get_version(self, *arguments: Any, **more: Any) -> RegisteredSchema:
        """Of schemas that others refer to."""
        version = self._asked(lambda: super(Client, self).get_version(*arguments, **more))
        self._checked(version.schema)
        return version

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and self._is_there(error):
                raise NoSchemaError(str(error)) from None
            raise AwayError(str(error)) from None
        except Exception as error:  # the network's, TLS's, a login page instead of JSON
            raise AwayError(f"{type(error).__name__}: {error}") from None

    def _is_there(self, error: SchemaRegistryError) -> bool:
        """Whether it was the registry that said 404, and not a proxy, or a wrong path."""
        if isinstance(error.error_code, int) and 40400 <= error.error_code < 40500:
            return True
        try:
            return isinstance(self.get_schema_types(), list)
        except Exception:
            return False

    def _checked(self, schema: Schema | None) -> Schema:
        if schema is None or not isinstance(schema.schema_str, str):
            self.clear_caches()  # type: ignore[no-untyped-call]
            raise AwayError("it answered with something that is no schema")
        return schema


def _connect(config: RegistryConfig) -> Client:
    try:
        return Client(config.client())
    except (ValueError, TypeError, OSError) as error:  # OSError: of TLS files
        raise ConfigError(f"a schema registry's client cannot be made with {config!r}: {error}") from None


class Schemas:
    """Schemas by a message's frame: its first bytes, up to and with the id or GUID.

    Attributes:
        client: of Avro schemas.
        serialized: of Protobuf schemas, which it asks for as descriptors. A client of its own, since clients do not remember in
            which form they asked.
    """

    def __init__(self, config: RegistryConfig) -> None:
        self.client = _connect(config)
        self.serialized = _connect(config)
        self._unknown: dict[bytes, float] = {}  # frame -> when to ask again

    def find(self, frame: bytes) -> Schema:
        """The schema: a Protobuf schema's text is its descriptor in base64.

        Raises:
            NoSchemaError, AwayError.
        """
        if self._unknown.get(frame, 0.0) > time.monotonic():
            raise NoSchemaError("the registry did not know the schema a moment ago")
        try:
            schema = self._ask(self.client, frame, None)
            return self._ask(self.serialized, frame, "serialized") if schema.schema_type == "PROTOBUF" else schema
        except NoSchemaError:
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[frame] = time.monotonic() + UNKNOWN_FOR_S
            raise

    def _ask(self, client: Client, frame: bytes, fmt: str | None) -> Schema:
        if frame[0] == 1:
            return client.get_schema_by_guid(str(UUID(bytes=frame[1:])), fmt)
        schema_id = int.from_bytes(frame[1:], "big")
        if not 0 < schema_id <= _MAX_ID:
            raise NoSchemaError(f"{schema_id} is no schema id")
        return client.get_schema(schema_id, None, fmt)
