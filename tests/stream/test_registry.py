"""Avro and Protobuf through a schema registry that answers over HTTP, and the ways in which it does not.

Run: pytest tests/stream/test_registry.py
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError, EventError, TopicError, UnavailableError
from schemas.event import Event, Forget, Parser, ParserConfig, hash_item_id
from schemas.formats import FORMATS, Format
from stream.oracle_formats import UnreadableError
from stream.oracle_framed import FramedOracle
from stream.oracle_rules import read_message
from stream.registry import Patience, RegistryConfig, framed_oracle, framed_reader, framed_value, masked
from stream.registry_client import Schemas
from tests.schema_registry import SchemaRegistry
from tests.schemas.test_event import FORGET, GOOD, NOW_MS

SCHEMAS = Path(__file__).parents[2] / "schemas"
AVSC = (SCHEMAS / "engagement.avsc").read_text()
EVENT = Event(b"u-17", NOW_MS - 1000, 4711, 4, 1)
FORGOTTEN = Forget(b"u-17", NOW_MS - 1000)
ALL = ParserConfig(formats=FORMATS)


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with SchemaRegistry() as registry:
        yield registry


@pytest.fixture(scope="module")
def pb2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """schemas/engagement.proto compiled, as a producer does it."""
    from grpc_tools import protoc

    directory = tmp_path_factory.mktemp("generated")
    assert protoc.main(["protoc", f"-I{SCHEMAS}", f"--python_out={directory}", "engagement.proto"]) == 0
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module("engagement_pb2")
    finally:
        sys.path.remove(str(directory))


def no_pause(_: float) -> None:
    pytest.fail("it waits")


def parser(
    registry: SchemaRegistry,
    pause: Callable[[float], None] = no_pause,
    give_up_after_s: float = 60,
    formats: tuple[Format, ...] = FORMATS,
    **options: str,
) -> Parser:
    config = RegistryConfig(registry.url, {name.replace("_", "."): value for name, value in options.items()})
    framed = framed_reader(config, formats, give_up_after_s, pause)
    return Parser(ParserConfig(formats=formats), framed)


def outcome(parser: Parser, value: bytes | None) -> Event | Forget | str:
    try:
        return parser.parse(value, NOW_MS)
    except EventError as error:
        assert len(str(error)) < 700, "a message goes into a dead letter's header"  # noqa: PT017
        return error.reason


def context(headers: list[tuple[str, bytes]] | None = None) -> SerializationContext:
    return SerializationContext("engagements", MessageField.VALUE, headers)


def avro(registry: SchemaRegistry, fields: dict[str, Any], schema: Any = AVSC) -> bytes:
    """A record framed with a schema's id, without a serializer's checks."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(json.loads(text)), fields)
    return registry.frame(registry.add(text)) + stream.getvalue()


def record(*fields: tuple[str, Any], name: str = "Other") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": one, "type": kind} for one, kind in fields]}


# Accepted


def test_avro_as_confluents_serializer_writes_it(registry: SchemaRegistry) -> None:
    serialize = AvroSerializer(SchemaRegistryClient({"url": registry.url}), AVSC)
    read = parser(registry)
    assert outcome(read, serialize(GOOD, context())) == EVENT
    assert outcome(read, serialize(FORGET, context())) == FORGOTTEN
    assert outcome(read, serialize({**GOOD, "item_id": "pin-9"}, context())) == EVENT._replace(
        item_id=hash_item_id("pin-9")
    )
    assert len(registry.schemas) == 1, "one schema, one subject, for both"


def test_protobuf_as_confluents_serializer_writes_it(registry: SchemaRegistry, pb2: Any) -> None:
    client, read = SchemaRegistryClient({"url": registry.url}), parser(registry)
    event = ProtobufSerializer(pb2.Engagement, client)
    assert outcome(read, event(pb2.Engagement(**GOOD), context())) == EVENT
    for_zero = pb2.Engagement(**{**GOOD, "item_id": 0})
    assert outcome(read, event(for_zero, context())) == EVENT._replace(item_id=0)
    named = {**GOOD, "item_name": "pin-9"}
    del named["item_id"]
    assert outcome(read, event(pb2.Engagement(**named), context())) == EVENT._replace(item_id=hash_item_id("pin-9"))
    forget = ProtobufSerializer(pb2.ForgetRequest, client)
    assert outcome(read, forget(pb2.ForgetRequest(**FORGET), context())) == FORGOTTEN
    assert len(registry.schemas) == 1, "one schema, one subject, for both"


def test_a_guid_in_a_header(registry: SchemaRegistry, pb2: Any) -> None:
    client, read = SchemaRegistryClient({"url": registry.url}), parser(registry)
    in_header = {"schema.id.serializer": header_schema_id_serializer}
    for serialize, message in (
        (AvroSerializer(client, AVSC, conf=in_header), GOOD),
        (ProtobufSerializer(pb2.Engagement, client, in_header), pb2.Engagement(**GOOD)),
    ):
        headers: list[tuple[str, bytes]] = [("trace", b"1")]
        value = serialize(message, context(headers))
        assert headers[1][0] == "__value_schema_id"
        assert outcome(read, framed_value(value, headers)) == EVENT
    assert framed_value(None, headers) is None
    assert framed_value(b"x", [("trace", b"1")]) == framed_value(b"x", None) == b"x"


def test_all_formats_through_one_parser_and_one_question_each(registry: SchemaRegistry, pb2: Any) -> None:
    read = parser(registry)
    serialize = ProtobufSerializer(pb2.Engagement, SchemaRegistryClient({"url": registry.url}))
    values = [json.dumps(GOOD).encode(), avro(registry, GOOD), serialize(pb2.Engagement(**GOOD), context())]
    registry.asked.clear()
    assert [outcome(read, value) for value in values * 5] == [EVENT] * 15
    assert sorted(registry.asked) == ["/schemas/ids/1", "/schemas/ids/2", "/schemas/ids/2?format=serialized"]


WIDE = record(
    *(("extra", ["null", {"type": "array", "items": "bytes"}]), ("user_id", "string"), ("item_id", "int")),
    ("action", {"type": "enum", "name": "Action", "symbols": ["view", "save"]}),
    *(("surface", "string"), ("timestamp_ms", {"type": "long", "logicalType": "timestamp-millis"})),
    ("forget_user", ["null", "string"]),
)


def test_any_avro_record_with_the_fields_is_an_event(registry: SchemaRegistry) -> None:
    wide = {**GOOD, "extra": [b"\xff"], "forget_user": None}
    assert outcome(parser(registry), avro(registry, wide, WIDE)) == EVENT
    assert outcome(parser(registry), avro(registry, {**wide, "forget_user": "u-17"}, WIDE)) == FORGOTTEN


def proto_file(**more: Any) -> descriptor_pb2.FileDescriptorProto:
    """An event's fields with other numbers, in another package, inside another message, beside an imported type."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="other.proto", package="acme", syntax="proto3", **more)
    file.dependency.append("google/protobuf/timestamp.proto")
    inner = file.message_type.add(name="Envelope").nested_type.add(name="Click")
    numbered = {
        "timestamp_ms": (11, kinds.TYPE_UINT64),
        "surface": (12, kinds.TYPE_STRING),
        "action": (13, kinds.TYPE_STRING),
        "item_id": (14, kinds.TYPE_FIXED64),
        "user_id": (15, kinds.TYPE_STRING),
    }
    for name, (number, kind) in numbered.items():
        inner.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    seen = inner.field.add(name="seen", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL)
    seen.type_name = ".google.protobuf.Timestamp"
    return file


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


CLICK = b"\x58" + varint(NOW_MS - 1000) + b"\x62\x04home" + b"\x6a\x04save"
CLICK += b"\x71" + (4711).to_bytes(8, "little") + b"\x7a\x04u-17" + b"\x0a\x02\x08\x01"


def click(registry: SchemaRegistry, **more: Any) -> bytes:
    text = base64.b64encode(proto_file(**more).SerializeToString()).decode()
    return registry.frame(registry.add(text, "PROTOBUF")) + b"\x04\x00\x00" + CLICK  # message indexes [0, 0]


def test_any_protobuf_message_with_the_fields_is_an_event(registry: SchemaRegistry) -> None:
    assert outcome(parser(registry), click(registry)) == EVENT


def test_schemas_that_refer_to_others(registry: SchemaRegistry) -> None:
    action = {"type": "enum", "name": "Action", "symbols": ["view", "save"]}
    whole = [*WIDE["fields"][:3], {"name": "action", "type": "Action"}, *WIDE["fields"][4:]]
    split = json.dumps({**WIDE, "fields": whole})
    registry.add("unused")
    registry.add(json.dumps(action))
    schema_id = registry.add(split, references=[{"name": "Action", "subject": "s", "version": 2}])
    written = avro(registry, {**GOOD, "extra": None, "forget_user": None}, WIDE)
    assert outcome(parser(registry), registry.frame(schema_id) + written[5:]) == EVENT
    oracle = FramedOracle(Schemas(RegistryConfig(registry.url)), FORMATS, Patience(RegistryConfig(registry.url), 1))
    with pytest.raises(TopicError, match="refers to others"):
        oracle(registry.frame(schema_id) + written[5:])


# Refused

HOLDS_ITSELF = record(("user_id", "string"), ("next", ["null", "Other"]))


def bad(registry: SchemaRegistry) -> dict[str, tuple[bytes, str]]:
    good = avro(registry, GOOD)
    proto = click(registry)
    return {
        "an id that nobody registered": (registry.frame(999) + good[5:], "unknown_schema"),
        "the id 0": (registry.frame(0) + good[5:], "unknown_schema"),
        "an id of 32 bits": (registry.frame(0xFFFFFFFF), "unknown_schema"),
        "a GUID that nobody registered": (b"\x01" + uuid.uuid4().bytes + good[5:], "unknown_schema"),
        "cut off in the id": (good[:4], "schema_mismatch"),
        "cut off in the GUID": (b"\x01" + bytes(15), "schema_mismatch"),
        "nothing but the id": (good[:5], "schema_mismatch"),
        "cut off": (good[:-1], "schema_mismatch"),
        "bytes behind it": (good + b"\x00", "schema_mismatch"),
        "a branch that the union does not have": (good[:5] + b"\x08" + good[6:], "schema_mismatch"),
        "not UTF-8": (good.replace(b"u-17", b"\xff\xfe\xfd\xfc"), "schema_mismatch"),
        "a text of negative length": (good[:6] + b"\x01" + good[7:], "schema_mismatch"),
        "a schema that holds itself": (
            registry.frame(registry.add(json.dumps(HOLDS_ITSELF))) + b"\x02u" + b"\x02" * 16_000,
            "schema_mismatch",
        ),
        "a schema that is none": (registry.frame(registry.add("{")) + b"\x00", "schema_mismatch"),
        "a JSON schema": (registry.frame(registry.add('{"type": "object"}', "JSON")) + b"{}", "format_not_accepted"),
        "a string": (avro(registry, "text", '"string"'), "wrong_shape"),  # type: ignore[arg-type]
        "other fields": (avro(registry, {"x": 1}, record(("x", "int"))), "wrong_shape"),
        "an item of bytes": (
            avro(
                registry, {**GOOD, "item_id": b"x"}, record(*[(n, "bytes" if n == "item_id" else t) for n, t in PLAIN])
            ),
            "wrong_shape",
        ),
        "a time as a float": (
            avro(registry, GOOD, record(*[(n, "double" if n == "timestamp_ms" else t) for n, t in PLAIN])),
            "wrong_shape",
        ),
        "no user": (avro(registry, {**GOOD, "user_id": ""}), "bad_user_id"),
        "a negative item": (avro(registry, {**GOOD, "item_id": -1}), "bad_item_id"),
        "an unknown action": (avro(registry, {**GOOD, "action": "pin"}), "unknown_action"),
        "Protobuf cut off": (proto[:-1], "schema_mismatch"),
        "Protobuf with an index too large": (proto[:5] + b"\x02\x0e" + proto[8:], "schema_mismatch"),
        "Protobuf with a negative index": (proto[:5] + b"\x02\x01" + proto[8:], "schema_mismatch"),
        "Protobuf without an index": (proto[:5], "schema_mismatch"),
        "Protobuf that is not UTF-8": (proto.replace(b"u-17", b"\xff\xfe\xfd\xfc"), "schema_mismatch"),
        "Protobuf with nothing set": (proto[:8], "wrong_shape"),
        "too long": (good + bytes(20_000), "too_large"),
    }


PLAIN = [
    ("user_id", "string"),
    ("item_id", "long"),
    ("action", "string"),
    ("surface", "string"),
    ("timestamp_ms", "long"),
]


def test_bad_messages_say_why_and_the_oracle_agrees(registry: SchemaRegistry) -> None:
    read = parser(registry)
    config = RegistryConfig(registry.url)
    oracle = FramedOracle(Schemas(config), FORMATS, Patience(config, 1))
    found = {name: outcome(read, value) for name, (value, _) in bad(registry).items()}
    assert found == {name: why for name, (_, why) in bad(registry).items()}
    for name, (value, _) in bad(registry).items():
        with pytest.raises(UnreadableError):
            pytest.fail(f"{name}: the oracle reads {read_message(value, NOW_MS, ALL, oracle)}")


def test_only_accepted_formats_of_the_registry_are_read(registry: SchemaRegistry) -> None:
    value, proto = avro(registry, GOOD), click(registry)
    only = parser(registry, formats=("json", "avro"))
    assert (outcome(only, value), outcome(only, proto)) == (EVENT, "format_not_accepted")
    only = parser(registry, formats=("protobuf",))
    assert (outcome(only, value), outcome(only, proto)) == ("format_not_accepted", EVENT)
    assert outcome(only, json.dumps(GOOD).encode()) == "format_not_accepted"


DAMAGE = st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=2)), max_size=3)


@given(DAMAGE, st.booleans(), st.integers(0, 100))
def test_damage_is_a_dead_letter_or_the_oracle_reads_the_same(
    shared: tuple[Parser, FramedOracle, bytes, bytes], damage: list[tuple[int, bytes]], is_avro: bool, cut: int
) -> None:
    read, oracle, *values = shared
    value = bytearray(values[is_avro])
    for at, some in damage:
        at = 5 + at % (len(value) - 5)  # the id stays: others are a question to the registry
        value[at : at + len(some)] = some
    message = bytes(value[: len(value) - max(0, cut - 90)])
    result = outcome(read, message)
    try:
        wanted = read_message(message, NOW_MS, ALL, oracle)
    except UnreadableError:
        assert result in EventError.REASONS
    else:
        assert not isinstance(result, str), result
        row, floor = (tuple(result[1:]), 0) if isinstance(result, Event) else (None, result.before_ms)
        assert wanted == (result.user, row, floor)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Parser, FramedOracle, bytes, bytes]]:
    with SchemaRegistry() as registry:
        config = RegistryConfig(registry.url)
        values = click(registry), avro(registry, GOOD)
        yield parser(registry), FramedOracle(Schemas(config), FORMATS, Patience(config, 1)), *values


# The registry away


@pytest.mark.parametrize("failing", [500, 503, 429, 401, 403, "html"])
def test_a_registry_that_does_not_answer_is_waited_for(registry: SchemaRegistry, failing: int | str) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            registry.failing = None

    read, value = parser(registry, pause), avro(registry, GOOD)
    registry.failing = failing
    assert outcome(read, value) == EVENT
    assert pauses == [0.1, 0.2, 0.4]
    registry.failing = failing
    assert outcome(read, value) == EVENT, "it remembers"


def test_a_registry_that_is_gone_is_waited_for(registry: SchemaRegistry) -> None:
    value = click(registry)
    read = parser(registry, lambda _: registry.open())
    registry.close()
    assert outcome(read, value) == EVENT


def test_a_registry_that_is_slow_is_waited_for(registry: SchemaRegistry) -> None:
    value = avro(registry, GOOD)

    def pause(_: float) -> None:
        registry.failing = None

    registry.failing = "slow"
    assert outcome(parser(registry, pause, timeout="0.2"), value) == EVENT


def test_it_gives_up_with_an_error_that_says_where(registry: SchemaRegistry) -> None:
    value = avro(registry, GOOD)
    registry.failing = 500
    read = parser(registry, lambda _: None, give_up_after_s=0.05)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1.*500.*schema_registry_url"):
        read.parse(value, NOW_MS)
    registry.failing = None
    assert outcome(read, value) == EVENT


def test_a_404_that_is_not_the_registrys_is_no_answer(registry: SchemaRegistry) -> None:
    """A wrong path, or a proxy: a message would be lost for a mistake in the settings."""
    value = avro(registry, GOOD)
    config = RegistryConfig(registry.url + "/not-here")
    read = Parser(ALL, framed_reader(config, FORMATS, 0.05, lambda _: None))
    with pytest.raises(UnavailableError, match="404"):
        read.parse(value, NOW_MS)
    registry.failing = 404  # with the code 40401, which is the registry's own
    assert outcome(parser(registry), value) == "unknown_schema"


def test_an_unknown_schema_is_asked_for_again_later(registry: SchemaRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    read, value = parser(registry), avro(registry, GOOD)
    late = registry.frame(len(registry.schemas) + 1) + value[5:]
    assert [outcome(read, late) for _ in range(5)] == ["unknown_schema"] * 5
    assert len(registry.asked) == 1
    monkeypatch.setattr("stream.registry_client.UNKNOWN_FOR_S", 0)
    read = parser(registry)
    assert outcome(read, late) == "unknown_schema"
    registry.schemas.append({**registry.schemas[0], "id": len(registry.schemas) + 1})
    assert outcome(read, late) == EVENT


# Settings


def test_login(registry: SchemaRegistry) -> None:
    value = avro(registry, GOOD)
    registry.login = "me:secret"
    assert outcome(parser(registry, basic_auth_user_info="me:secret"), value) == EVENT
    config = RegistryConfig(registry.url.replace("//", "//me:secret@"))
    assert outcome(Parser(ALL, framed_reader(config, FORMATS, 1, no_pause)), value) == EVENT
    with pytest.raises(UnavailableError, match="401"):
        parser(registry, lambda _: None, 0.05, basic_auth_user_info="me:wrong").parse(value, NOW_MS)


def test_secrets_are_masked() -> None:
    config = RegistryConfig(
        "https://me:secret@a:1,https://b:2",
        {"basic.auth.user.info": "me:secret", "bearer.auth.token": "secret", "timeout": "3"},
    )
    assert "secret" not in repr(config)
    assert "https://a:1,https://b:2" in repr(config)
    assert "'timeout': '3'" in repr(config)
    assert set(masked({"ssl.key.password": "secret", "bearer.auth.client.secret": "secret"}).values()) == {"********"}


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("ftp://me:secret@host", {}, "ftp://host: it must begin with http"),
        ("mock://x", {}, "http"),
        ("http://host", {"timeout": "soon"}, "timeout 'soon' is not a number"),
        ("http://host", {"no.such.option": "1"}, "no.such.option"),
        ("http://host", {"ssl.ca.location": "/nowhere/ca.pem"}, "cannot be made"),
        ("http://host", {"basic.auth.user.info": "secret"}, "basic.auth.user.info"),
    ],
)
def test_wrong_settings_are_named_without_their_secrets(url: str, options: dict[str, str], says: str) -> None:
    def connect() -> None:
        config = RegistryConfig(url, options)
        framed_reader(config, FORMATS, 1)

    with pytest.raises(ConfigError) as caught:
        connect()
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_registry_is_needed_for_the_built_in_formats() -> None:
    assert framed_reader(None, ("json", "msgpack"), 1) is None
    assert framed_oracle(None, ("json", "msgpack"), 1) is None
    for make in (framed_reader, framed_oracle):
        with pytest.raises(ConfigError, match="avro, so `schema_registry_url` must be set"):
            make(None, ("json", "avro"), 1)
