"""The oracle's own decoding of Avro and Protobuf. It shares only the asking of the registry with ingest.

Needs the extra `registry`.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import fastavro
from confluent_kafka.schema_registry import Schema
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from schemas.errors import TopicError
from schemas.formats import Format
from stream.oracle_formats import UnreadableError
from stream.registry import Patience
from stream.registry_client import NoSchemaError, Schemas

Decode = Callable[[bytes], object]


class FramedOracle:
    """Call it with a framed message: its fields.

    Raises:
        UnreadableError: what ingest must refuse.
        TopicError: a schema that the oracle does not follow, so that nobody can say what ingest must make of it.
        UnavailableError: the registry is away.
    """

    def __init__(self, schemas: Schemas, accepted: Sequence[Format], patience: Patience) -> None:
        self._schemas, self._accepted, self._patience = schemas, accepted, patience
        self._decoders: dict[bytes, Decode] = {}

    def __call__(self, value: bytes) -> object:
        length = 5 if value[0] == 0 else 17
        if len(value) < length:
            raise UnreadableError("no schema id")
        frame = value[:length]
        if frame not in self._decoders:
            try:
                schema = self._patience.insist(lambda: self._schemas.find(frame))
            except NoSchemaError:
                raise UnreadableError("unknown schema") from None
        try:
            if frame not in self._decoders:
                self._decoders[frame] = self._decoder(schema)
            return self._decoders[frame](value[length:])
        except (UnreadableError, TopicError):
            raise
        except Exception:
            raise UnreadableError("not what its schema says") from None

    def _decoder(self, schema: Schema) -> Decode:
        kind = schema.schema_type or "AVRO"
        if kind.lower() not in self._accepted:
            raise UnreadableError("format not accepted")
        if schema.references:
            raise TopicError("a schema refers to others, which the oracle does not follow")
        return _avro(str(schema.schema_str)) if kind == "AVRO" else _protobuf(str(schema.schema_str))


def _avro(text: str) -> Decode:
    named: dict[str, Any] = {}
    schema = fastavro.parse_schema(json.loads(text), named)
    if _cyclic(schema, named, ()):
        raise UnreadableError("a schema that holds itself")

    def decode(payload: bytes) -> object:
        stream = io.BytesIO(payload)
        content = cast(Any, fastavro.schemaless_reader(stream, schema, None))
        if stream.tell() != len(payload):
            raise UnreadableError("bytes after the record")
        if isinstance(content, dict):
            at = content.get("timestamp_ms")
            if isinstance(at, datetime) and at.tzinfo is UTC:
                seconds = int(at.replace(microsecond=0).timestamp())
                content["timestamp_ms"] = seconds * 1000 + at.microsecond // 1000
        return content

    return decode


def _cyclic(schema: Any, named: dict[str, Any], path: tuple[str, ...]) -> bool:
    """Whether following the schema's names comes back to one: fastavro's parsed schemas have full names."""
    if isinstance(schema, list):
        return any(_cyclic(branch, named, path) for branch in schema)
    if isinstance(schema, str):
        return schema in path or (schema in named and _cyclic(named[schema], named, path))
    if schema["type"] in ("record", "error"):
        name = schema["name"]
        return name in path or any(_cyclic(one["type"], named, (*path, name)) for one in schema["fields"])
    if schema["type"] in ("array", "map"):
        return _cyclic(schema["items" if schema["type"] == "array" else "values"], named, path)
    return False


def _protobuf(text: str) -> Decode:
    file = FileDescriptorProto.FromString(base64.b64decode(text))
    file.name = "the schema"
    pool = DescriptorPool()
    try:
        for name in file.dependency:
            pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(name).serialized_pb)
        pool.Add(file)
    except (KeyError, TypeError) as error:
        raise TopicError(f"a schema imports files that the oracle does not have: {error}") from None

    def decode(payload: bytes) -> object:
        count, at = _zigzag(payload, 0)
        path = []
        for _ in range(count):
            index, at = _zigzag(payload, at)
            path.append(index)
        inner: Any = file.message_type
        names = [file.package] if file.package else []
        for index in path or [0]:
            if index < 0:
                raise UnreadableError("a negative message index")
            names.append(inner[index].name)
            inner = inner[index].nested_type
        message: Any = GetMessageClass(pool.FindMessageTypeByName(".".join(names)))()
        message.ParseFromString(payload[at:])
        fields = {}
        for one in message.DESCRIPTOR.fields:
            content = getattr(message, one.name)
            if message.HasField(one.name) if one.has_presence else content != one.default_value:
                fields[one.name] = content
        if "item_id" not in fields and "item_name" in fields:
            fields["item_id"] = fields["item_name"]
        return fields

    return decode


def _zigzag(payload: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (payload[at] & 0x7F) << shift
        shift += 7
        at += 1
        if payload[at - 1] < 0x80:
            return (number >> 1) ^ -(number & 1), at
