"""Event logs from files: every format, every kind of value, every kind of bad row."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError, LogError, PrerequisiteError
from schemas.event import Event, Parser, ParserConfig, encode_engagement, hash_item_id
from schemas.formats import Engagement
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary
from stream import readers
from stream.columns import ColumnMapping
from stream.logs import LogOptions, load_log, read_log
from stream.ties import spread_ties

SKIP = LogOptions(on_bad_rows="skip")
ROWS: list[dict[str, Any]] = [
    {"user_id": "ann", "item_id": 7, "action": "save", "surface": "home", "timestamp_ms": 1_700_000_000_000},
    {"user_id": "bob", "item_id": "sku-9", "action": "view", "surface": "search", "timestamp_ms": 1_700_000_000_001},
    {"user_id": "ann", "item_id": 2**63 - 1, "action": "hide", "surface": "home", "timestamp_ms": 1_700_000_000_002},
]
EXPECTED = [
    ("ann", 1_700_000_000_000, 7, "save", "home"),
    ("bob", 1_700_000_000_001, hash_item_id("sku-9"), "view", "search"),
    ("ann", 1_700_000_000_002, 2**63 - 1, "hide", "home"),
]


def events(log: EventLog) -> list[tuple[str, int, int, str, str]]:
    vocabulary = log.vocabulary
    return [
        (log.users[user], timestamp_ms, item_id, vocabulary.actions[action], vocabulary.surfaces[surface])
        for user, (timestamp_ms, item_id, action, surface) in zip(
            log.user_index.tolist(), log.records.tolist(), strict=True
        )
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """The rows in the format of the path's suffix."""
    if path.suffix == ".parquet":
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        columns["item_id"] = [str(value) for value in columns["item_id"]]
        pq.write_table(pa.table(columns), path)
    elif path.suffix in (".csv", ".tsv"):
        delimiter = "," if path.suffix == ".csv" else "\t"
        lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def csv_file(tmp_path: Path, *lines: str, header: str = "user_id,item_id,action,surface,timestamp_ms") -> str:
    path = tmp_path / "log.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".CSV"])
def test_every_format_gives_the_same_log(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"log{suffix}"
    if suffix == ".CSV":
        Path(write(tmp_path / "lower.csv", ROWS)).rename(path)
    else:
        write(path, ROWS)
    log = read_log(str(path))
    assert events(log) == EXPECTED
    assert log.records.dtype == RECORD
    assert log.user_index.dtype == np.int32
    assert log.users == ["ann", "bob"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_chunks_join(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "CHUNK_ROWS", 7)
    rows = [{**ROWS[i % 3], "user_id": f"u{i % 11}", "timestamp_ms": 1_700_000_000_000 + i} for i in range(100)]
    log = read_log(write(tmp_path / f"log{suffix}", rows))
    assert [event[:2] for event in events(log)] == [(row["user_id"], row["timestamp_ms"]) for row in rows]


def test_a_log_says_what_ingest_would_read(tmp_path: Path) -> None:
    """The same JSON, as a log and as messages: the same events."""
    parser = Parser(ParserConfig())
    path = tmp_path / "log.jsonl"
    lines = [encode_engagement(**row) for row in ROWS]
    path.write_bytes(b"\n".join(lines))
    log = read_log(str(path))
    for line, user, record in zip(lines, log.user_index.tolist(), log.records.tolist(), strict=True):
        assert parser.parse(line, 2_000_000_000_000) == Event(log.users[user].encode(), *record)


def test_columns_are_mapped_and_constants_fill_in(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "2026-01-31T12:00:00Z,x,u1,5,q", header="when,what,who,rating,unused")
    mapping = ColumnMapping(
        user="who",
        item="what",
        action="rating",
        timestamp="when",
        timestamp_unit="iso",
        surface_constant="home",
        action_values={"5": "save"},
    )
    at_ms = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp() * 1000)
    assert events(read_log(path, columns=mapping)) == [("u1", at_ms, hash_item_id("x"), "save", "home")]


@pytest.mark.parametrize(
    ("unit", "value", "expected_ms"),
    [
        ("s", 978_300_760, 978_300_760_000),
        ("s", "978300760.25", 978_300_760_250),
        ("s", 978_300_760.0, 978_300_760_000),
        ("ms", 978_300_760_123, 978_300_760_123),
        ("ms", "978300760123", 978_300_760_123),
        ("us", 978_300_760_123_999, 978_300_760_123),
        ("ns", 978_300_760_123_999_999, 978_300_760_123),
        ("iso", "2000-12-31T22:12:40.123Z", 978_300_760_123),
        ("iso", "2000-12-31 23:12:40.123+01:00", 978_300_760_123),
        ("iso", "2000-12-31T22:12:40.123456", 978_300_760_123),
        ("iso", "2000-12-31", 978_220_800_000),
    ],
)
def test_timestamp_units(unit: Any, value: object, expected_ms: int, tmp_path: Path) -> None:
    rows = [{**ROWS[0], "timestamp_ms": value}]
    for suffix in (".jsonl", ".csv", ".parquet"):
        log = read_log(write(tmp_path / f"log{suffix}", rows), columns=ColumnMapping(timestamp_unit=unit))
        assert log.records["timestamp_ms"].tolist() == [expected_ms], suffix


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_parquet_timestamp_knows_its_unit(unit: str, tmp_path: Path) -> None:
    instant = datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)
    for kind in (pa.timestamp(unit), pa.timestamp(unit, "UTC")):
        table = pa.table({"user_id": ["u"], "item_id": [1], "action": ["save"], "surface": ["home"]})
        pq.write_table(table.append_column("timestamp_ms", pa.array([instant], kind)), tmp_path / "log.parquet")
        log = read_log(str(tmp_path / "log.parquet"), columns=ColumnMapping(timestamp_unit="s"))
        assert log.records["timestamp_ms"].tolist() == [978_300_760_000]


def test_parquet_types(tmp_path: Path) -> None:
    """Integers for users, dictionaries for names, large strings, floats for ratings; nulls are missing."""
    table = pa.table(
        {
            "user_id": pa.array([17, None, 18], pa.int32()),
            "item_id": pa.array(["a", "b", "17"], pa.large_string()),
            "action": pa.array([5.0, 5.0, 5.0]),
            "surface": pa.array(["home", "home", "search"]).dictionary_encode(),
            "timestamp_ms": pa.array([1_700_000_000_000] * 3, pa.uint64()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    mapping = ColumnMapping(action_values={"5": "save"})
    loaded = load_log(str(tmp_path / "log.parquet"), columns=mapping, options=SKIP)
    assert [event[:1] + event[2:] for event in events(loaded.log)] == [
        ("17", hash_item_id("a"), "save", "home"),
        ("18", 17, "save", "search"),
    ]
    assert loaded.examples == (f"{tmp_path}/log.parquet: row 2, column 'user_id': a user id is missing",)


@pytest.mark.parametrize(
    ("item_ids", "text", "expected"),
    [
        ("auto", "17", 17),
        ("auto", "017", hash_item_id("017")),
        ("auto", "sku", hash_item_id("sku")),
        ("integer", "017", 17),
        ("string", "17", hash_item_id("17")),
    ],
)
def test_item_ids_of_text(item_ids: Any, text: str, expected: int, tmp_path: Path) -> None:
    path = csv_file(tmp_path, f"u,{text},save,home,1700000000000")
    assert read_log(path, columns=ColumnMapping(item_ids=item_ids)).records["item_id"].tolist() == [expected]


def test_csv_quotes_lines_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(
        b"\xef\xbb\xbfuser_id,item_id,action,surface,timestamp_ms\r\n"
        b'"an ""odd"", user\nof two lines",1,save,home,1700000000000\r\n'
        b"\r\n"
        b"\xc3\xa9l\xc3\xa8ve,2,save,home,1700000000001"
    )
    assert read_log(str(path)).users == ['an "odd", user\nof two lines', "élève"]


def test_csv_without_header_and_with_another_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u;1;save;home;1700000000000\n")
    options = LogOptions(csv_header=("user_id", "item_id", "action", "surface", "timestamp_ms"), csv_delimiter=";")
    assert len(read_log(str(path), options=options)) == 1


GOOD = "u,1,save,home,1700000000000"
BAD_LINES = [
    (",1,save,home,1700000000000", "user_id", "user id is missing"),
    ("é" * 129 + ",1,save,home,1700000000000", "user_id", "258 bytes"),
    ("u,,save,home,1700000000000", "item_id", "item id is missing"),
    ("u,-1,save,home,1700000000000", "item_id", "not in"),
    ("u,9223372036854775808,save,home,1700000000000", "item_id", "not in"),
    ("u," + "x" * 513 + ",save,home,1700000000000", "item_id", "513 bytes"),
    ("u,1,bought,home,1700000000000", "action", "'bought' is no action that is known"),
    ("u,1,,home,1700000000000", "action", "missing"),
    ("u,1,save,moon,1700000000000", "surface", "'moon' is no surface"),
    ("u,1,save,home,", "timestamp_ms", "timestamp is missing"),
    ("u,1,save,home,yesterday", "timestamp_ms", "not a number"),
    ("u,1,save,home,0", "timestamp_ms", "not between 1970 and 9999"),
    ("u,1,save,home,-5", "timestamp_ms", "not between 1970 and 9999"),
    ("u,1,save,home,1700000000000000", "timestamp_ms", "is its unit right"),
    ("u,1,save,home,NaN", "timestamp_ms", "not between"),
    ("u,1,save,home," + "9" * 30, "timestamp_ms", "not between"),
    ("u,1,save,home", None, "4 fields where the header has 5"),
    ("u,1,save,home,1700000000000,6", None, "6 fields"),
    ('u,1,"save"x,home,1700000000000', None, "not CSV"),
]


@pytest.mark.parametrize(("line", "column", "problem"), BAD_LINES)
def test_a_bad_line_is_named_or_skipped(line: str, column: str | None, problem: str, tmp_path: Path) -> None:
    path = csv_file(tmp_path, GOOD, '"u\nv",2,save,home,1700000000001', line, GOOD)
    with pytest.raises(LogError) as raised:
        read_log(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: line 5" + (f", column {column!r}: " if column else ": ")), message
    assert problem in message
    assert "skipped" in message, "it must say what to do"
    loaded = load_log(path, options=SKIP)
    assert loaded.log.users == ["u", "u\nv"]
    assert len(loaded.log) == 3
    assert (loaded.skipped, loaded.skipped_by_column) == (1, {column or "": 1})
    assert problem in loaded.examples[0]


def test_a_log_with_names_of_its_own_is_told_all_of_them_at_once(tmp_path: Path) -> None:
    lines = [f"u,1,{action},home,1700000000000" for action in ("save", "bought", "viewed", "bought", "carted")]
    with pytest.raises(
        LogError, match=r"'bought' is no action that is known \(.*\), nor are 'viewed', 'carted': .*`actions`"
    ):
        read_log(csv_file(tmp_path, *lines))


def test_bytes_that_are_not_utf8_spoil_only_their_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    head = b"user_id,item_id,action,surface,timestamp_ms\n"
    path.write_bytes(head + b"\xff\xfe,1,save,home,1700000000000\n" + GOOD.encode())
    loaded = load_log(str(path), options=SKIP)
    assert loaded.log.users == ["u"]
    assert "line 2, column 'user_id'" in loaded.examples[0]
    assert "not UTF-8" in loaded.examples[0]


BAD_JSON = [
    (b"{", "not JSON"),
    (b"not json", "not JSON"),
    (b'{"user_id": "\xff"}', "not JSON"),
    (b"[" * 5000, "Expected `object`"),
    (b"[1]", "Expected `object`"),
    (b'{"user_id": {"a": 1}}', "user_id"),
    (b'{"user_id": ["a"]}', "user_id"),
    (b'{"user_id": 1.5, "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": 1700000000000}', "1.5"),
    (b'{"user_id": true, "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": 1700000000000}', "True"),
    (b'{"user_id": "u", "item_id": 1.0, "action": "save", "surface": "home", "timestamp_ms": 1700000000000}', "1.0"),
    (
        b'{"user_id": "u", "item_id": null, "action": "save", "surface": "home", "timestamp_ms": 1700000000000}',
        "missing",
    ),
    (b'{"user_id": "u", "action": "save", "surface": "home", "timestamp_ms": 1700000000000}', "item id is missing"),
    (b'{"user_id": "u", "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": true}', "True"),
    (b'{"user_id": "u", "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": 1e400}', ""),
    (b'{"user_id": "u", "item_id": 1, "action": "save", "surface": "home", "timestamp_ms": 1' + b"0" * 300 + b"}", ""),
]


@pytest.mark.parametrize(("line", "problem"), BAD_JSON)
def test_a_bad_json_line_is_named_or_skipped(line: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = [json.dumps(row).encode() for row in ROWS]
    path.write_bytes(b"\n".join([good[0], b"  ", good[1], line, good[2]]))
    with pytest.raises(LogError, match=r"log.jsonl: line 4") as raised:
        read_log(str(path))
    assert problem in str(raised.value)
    loaded = load_log(str(path), options=SKIP)
    assert events(loaded.log) == EXPECTED
    assert loaded.skipped == 1


def test_all_bad_rows_are_counted_and_few_are_shown(tmp_path: Path) -> None:
    lines = [line for line, _, _ in BAD_LINES]
    loaded = load_log(csv_file(tmp_path, *lines, GOOD, *lines), options=SKIP)
    assert loaded.skipped == 2 * len(lines) == sum(loaded.skipped_by_column.values())
    assert loaded.skipped_by_column["timestamp_ms"] == 2 * sum(column == "timestamp_ms" for _, column, _ in BAD_LINES)
    assert len(loaded.examples) == 5
    assert len(loaded.log) == 1


def test_users_of_bad_rows_alone_are_no_users(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "ghost,-1,save,home,1700000000000", GOOD)
    assert load_log(path, options=SKIP).log.users == ["u"]


def test_a_log_without_a_good_row_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"all 2 rows are bad, the first is .*line 2, column 'action'"):
        read_log(csv_file(tmp_path, "u,1,5,home,1700000000000", "u,1,4,home,1700000000000"), options=SKIP)
    with pytest.raises(LogError, match="holds no events"):
        read_log(csv_file(tmp_path))


def test_unknown_names_may_become_other(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "u,1,bought,moon,1700000000000")
    log = read_log(path, options=LogOptions(unknown_names="other"))
    assert events(log)[0][3:] == ("other", "other")


def test_what_cannot_be_a_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ml-100k, ml-1m.*\.parquet"):
        read_log("ml-20m")
    with pytest.raises(LogError, match=r"gone.csv: No such file"):
        read_log(str(tmp_path / "gone.csv"))
    (tmp_path / "text.parquet").write_text("this is no parquet file")
    with pytest.raises(LogError, match="cannot be read as Parquet"):
        read_log(str(tmp_path / "text.parquet"))
    with pytest.raises(LogError, match=r"no column 'user_id' for the user; its columns are a, b"):
        read_log(csv_file(tmp_path, "1,2", header="a,b"))
    with pytest.raises(LogError, match="more than one column 'user_id'"):
        read_log(csv_file(tmp_path, GOOD + ",1", header="user_id,item_id,action,surface,timestamp_ms,user_id"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(LogError, match="no column 'user_id'"):
        read_log(str(tmp_path / "empty.csv"))
    pq.write_table(pa.table({**{name: [1] for name in ROWS[0]}, "user_id": [[1]]}), tmp_path / "nested.parquet")
    with pytest.raises(LogError, match=r"'user_id' for the user is of type list"):
        read_log(str(tmp_path / "nested.parquet"))


def test_seconds_taken_for_milliseconds_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="timestamp_unit"):
        read_log(csv_file(tmp_path, "u,1,save,home,978300760"))


def test_mappings_and_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="uses a column twice"):
        ColumnMapping(user="a", item="a")
    with pytest.raises(ConfigError, match="neither a column nor a constant for the surface"):
        ColumnMapping(surface=None)
    with pytest.raises(ConfigError, match="turns '5' into the action 'bought'"):
        read_log(csv_file(tmp_path, GOOD), columns=ColumnMapping(action_values={"5": "bought"}))
    with pytest.raises(ConfigError, match="gives every event the surface 'moon'"):
        read_log(csv_file(tmp_path, GOOD), columns=ColumnMapping(surface_constant="moon"))
    with pytest.raises(ConfigError, match="orders a log by time"):
        LogOptions(order="source", spread_ties=True)
    with pytest.raises(ConfigError, match="one character"):
        LogOptions(csv_delimiter="||")


def test_order_by_time_keeps_ties_and_order_of_the_source_keeps_all(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path, *(f"u,{item},save,home,{1_700_000_000_000 + at}" for item, at in [(1, 5), (2, 3), (3, 5)])
    )
    assert read_log(path).records["item_id"].tolist() == [2, 1, 3]
    assert read_log(path, options=LogOptions(order="source")).records["item_id"].tolist() == [1, 2, 3]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1_000, 1_008), st.integers(0, 5), st.integers(0, 1)), max_size=40
    ),
    st.integers(-5, 5),
    st.randoms(),
)
def test_spread_ties_properties(rows: list[tuple[int, int, int, int]], seed: int, random: Any) -> None:
    def log_of(rows: list[tuple[int, int, int, int]]) -> EventLog:
        records = np.array([(at, item, action, 1) for _, at, item, action in rows], RECORD)
        return EventLog(["a", "b", "c", "d"], np.array([row[0] for row in rows], np.int32), records, Vocabulary())

    spread = spread_ties(log_of(rows), seed)
    shuffled = random.sample(rows, len(rows))
    assert events(spread_ties(log_of(shuffled), seed)) == events(spread), "the source's order must not matter"
    timestamp_ms = spread.records["timestamp_ms"]
    assert (np.diff(timestamp_ms) >= 0).all()
    assert len(spread) == len(set(rows)), "equal events are one, others are all there"
    for user in range(4):
        of_user = timestamp_ms[spread.user_index == user]
        assert (np.diff(of_user) > 0).all()
        wanted: list[int] = []  # the rule, said slowly
        for at in sorted(row[1] for row in set(rows) if row[0] == user):
            wanted.append(max(at, wanted[-1] + 1) if wanted else at)
        assert of_user.tolist() == wanted


def test_engagement_and_default_mapping_name_the_same_fields() -> None:
    mapping = ColumnMapping()
    assert set(mapping.columns.values()) == {"user_id", "item_id", "action", "surface", "timestamp_ms"}
    assert set(mapping.columns.values()) < set(Engagement.__struct_fields__)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "log.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PrerequisiteError, match=r"slipstream-embeddings\[parquet\]"):
        read_log(path)
    for suffix in (".csv", ".jsonl"):  # these need nothing
        assert len(read_log(write(tmp_path / f"log{suffix}", ROWS))) == 3


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array([True]), "True is not a user id"),
        (pa.array([None]), "a user id is missing"),
        (pa.array([1.5]), "1.5 is not a user id"),
        (pa.array([None], pa.string()).dictionary_encode(), "a user id is missing"),
    ],
)
def test_a_parquet_column_of_no_user_ids(column: pa.Array, problem: str, tmp_path: Path) -> None:
    table = pa.table({"user_id": column, **{name: [ROWS[0][name]] for name in ROWS[0] if name != "user_id"}})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(LogError, match=rf"row 1, column 'user_id': {problem}"):
        read_log(str(tmp_path / "log.parquet"))


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "log.parquet", ROWS * 1000))
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"log\.parquet"):
        read_log(str(path), options=SKIP)
