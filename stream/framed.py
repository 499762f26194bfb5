"""Messages that a schema registry's client framed: Avro and Protobuf, read as they were written.

The schema is the writer's, by the message's own id, and fields are taken by their names: so old and new versions of a schema can
be in the topic together, and any record with the fields of an event is one. Needs the extra `registry`.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from confluent_kafka.schema_registry import Schema, dual_schema_id_deserializer
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from schemas.errors import EventError
from schemas.formats import Engagement, ForgetRequest, Format, from_fields
from stream.registry import AwayError, Patience
from stream.registry_client import FRAME_BYTES, Client, NoSchemaError, Schemas

#: What a Protobuf event's item is called when it is text: a field has one type there.
ITEM_NAME = "item_name"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

Fields = Callable[[bytes], object]
"""A framed message's fields."""


class FramedReader:
    """Reads framed messages. Only a frame that is new asks the registry."""

    def __init__(self, schemas: Schemas, accepted: Sequence[Format], patience: Patience) -> None:
        self._schemas = schemas
        self._accepted = {name.upper(): name for name in accepted}
        self._patience = patience
        self._avro = _Avro(schemas.client)
        self._fields: dict[bytes, tuple[str, Fields]] = {}

    def read(self, value: bytes) -> Engagement | ForgetRequest:
        """Waits while the registry is away.

        Raises:
            EventError: `format_not_accepted`, `unknown_schema`, `schema_mismatch`, `wrong_shape`.
            UnavailableError: the registry was away for too long.
        """
        frame = value[: FRAME_BYTES[value[0]]]
        if len(frame) < FRAME_BYTES[value[0]]:
            raise EventError("schema_mismatch", f"the message ends within its schema's id, after {len(value)} bytes")
        name, fields = self._patience.insist(lambda: self._decoded(frame, value))
        return from_fields(fields, name)

    def _decoded(self, frame: bytes, value: bytes) -> tuple[str, object]:
        name = "message"
        try:
            known = self._fields.get(frame)
            if known is None:
                known = self._fields[frame] = self._reader_of(self._schemas.find(frame))
            name, read = known
            return name, read(value)
        except (AwayError, EventError, MemoryError):
            raise
        except NoSchemaError as error:
            why = str(error)[:200]
            raise EventError("unknown_schema", f"the message's schema, {_shown(frame)}: {why}") from None
        except Exception as error:  # decoders raise what they stumble over: EOFError, ValueError, IndexError, ...
            why = f"{type(error).__name__}: {error}"[:200]
            raise EventError(
                "schema_mismatch", f"the message is not the {name} of its schema, {_shown(frame)}: {why}"
            ) from None

    def _reader_of(self, schema: Schema) -> tuple[str, Fields]:
        kind = schema.schema_type or "AVRO"
        if kind not in self._accepted:
            raise EventError(
                "format_not_accepted",
                f"the message's schema is {kind}; of what registries' clients frame, {', '.join(self._accepted)} is accepted",
            )
        if kind == "AVRO":
            return "Avro", self._avro.reader_of(schema)
        return "Protobuf", _Protobuf(schema, self._schemas.serialized).fields


def _shown(frame: bytes) -> str:
    return f"id {int.from_bytes(frame[1:], 'big')}" if frame[0] == 0 else f"GUID {UUID(bytes=frame[1:])}"


class _Avro:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._payload = io.BytesIO()
        self._deserialize = AvroDeserializer(client, conf={"schema.id.deserializer": self._unframed})

    def _unframed(self, value: bytes, context: Any, schema_id: Any) -> io.BytesIO:
        self._payload = dual_schema_id_deserializer(value, context, schema_id)
        return self._payload

    def reader_of(self, schema: Schema) -> Fields:
        self._require_finite(schema)
        return self._fields

    def _require_finite(self, schema: Schema) -> None:
        """fastavro recurses in C without a limit: a message of a schema that holds itself could end the process."""
        for reference in schema.references or []:
            self._require_finite(self._client.get_version(reference.subject, reference.version, True).schema)
        if holds_itself(json.loads(str(schema.schema_str))):
            raise EventError("schema_mismatch", "the message's Avro schema holds itself: such messages are not read")

    def _fields(self, value: bytes) -> object:
        fields = self._deserialize(value)
        if rest := self._payload.read():
            raise ValueError(f"{len(rest)} bytes follow the record")
        if isinstance(fields, dict) and isinstance(at := fields.get("timestamp_ms"), datetime) and at.tzinfo:
            fields["timestamp_ms"] = (at - _EPOCH) // _MILLISECOND  # the logical type timestamp-millis
        return fields


def holds_itself(schema: Any, within: frozenset[str] = frozenset(), namespace: str = "") -> bool:
    """Whether a record of an Avro schema contains its own name."""
    if isinstance(schema, str):
        return (schema if "." in schema or not namespace else f"{namespace}.{schema}") in within
    if isinstance(schema, list):
        return any(holds_itself(branch, within, namespace) for branch in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("type") in ("record", "error"):
        space, _, name = str(schema.get("name")).rpartition(".")
        space = space or str(schema.get("namespace", namespace))
        inside = within | {f"{space}.{name}" if space else name}
        return any(holds_itself(one.get("type"), inside, space) for one in schema.get("fields", []))
    inner = (schema.get(key) for key in ("type", "items", "values"))
    return any(holds_itself(one, within, namespace) for one in inner if one is not None)


class _Protobuf:
    """Messages of one schema: a file, of which each message says which of its types it is."""

    def __init__(self, schema: Schema, client: Client) -> None:
        self._client = client
        self._schema = schema
        self._file: FileDescriptorProto | None = None
        self._pool = DescriptorPool()
        self._deserializers: dict[tuple[int, ...], ProtobufDeserializer] = {}  # by message indexes

    def fields(self, value: bytes) -> object:
        indexes = _indexes(value)
        deserialize = self._deserializers.get(indexes)
        if deserialize is None:
            message_type: Any = GetMessageClass(self._descriptor(indexes))
            deserialize = self._deserializers[indexes] = ProtobufDeserializer(message_type, {}, self._client)
        message: Any = deserialize(value)
        return _set_fields(message)

    def _add(self, name: str, schema: Schema) -> FileDescriptorProto:
        """Adds a file and those that it imports to the pool."""
        file = FileDescriptorProto.FromString(base64.standard_b64decode(str(schema.schema_str)))
        file.name = name
        for reference in schema.references or []:
            registered = self._client.get_version(reference.subject, reference.version, True, "serialized")
            self._add(str(reference.name), registered.schema)
        for imported in file.dependency:
            self._add_built_in(imported)
        self._pool.Add(file)
        return file

    def _add_built_in(self, name: str) -> None:
        """Google's and Confluent's own files, which come with their packages."""
        try:
            self._pool.FindFileByName(name)
        except KeyError:
            file = FileDescriptorProto()
            descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
            for imported in file.dependency:
                self._add_built_in(imported)
            self._pool.Add(file)

    def _descriptor(self, indexes: Sequence[int]) -> Descriptor:
        if self._file is None:
            self._pool = DescriptorPool()  # a new one after each attempt that the registry cut short
            self._file = self._add("the message's schema", self._schema)
        file = self._file
        first, *inner = indexes
        message = file.message_type[first]
        path = [file.package, message.name] if file.package else [message.name]
        for index in inner:
            message = message.nested_type[index]
            path.append(message.name)
        return self._pool.FindMessageTypeByName(".".join(path))


def _indexes(value: bytes) -> tuple[int, ...]:
    """Which type of the file the message is, and inside which."""
    at = FRAME_BYTES[value[0]]
    if value[at : at + 1] == b"\x00":  # the first one, nearly always
        return (0,)
    schema_id = SchemaId("PROTOBUF")
    schema_id.from_bytes(io.BytesIO(value))
    indexes = tuple(schema_id.message_indexes or [0])
    if min(indexes) < 0:
        raise ValueError(f"message indexes {indexes}")
    return indexes


def _set_fields(message: Message) -> dict[str, object]:
    """The fields that are set: an integer of 0 or an empty text is not, unless the schema says `optional` or `oneof`."""
    fields = {descriptor.name: content for descriptor, content in message.ListFields()}
    if ITEM_NAME in fields and "item_id" not in fields:
        fields["item_id"] = fields.pop(ITEM_NAME)
    return fields
