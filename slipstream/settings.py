"""The settings: one frozen object, filled from flags, then the environment (`SLIPSTREAM_...`), then a TOML file, then defaults.

The file is the one named by `--config` or `SLIPSTREAM_CONFIG`, else `slipstream.toml` in the working directory, if it is there.
An unknown or unparsable key, in the file or in the environment, stops the start and is named. Nothing is read at import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from edge.log_lines import LogFormat
from edge.tracing import TraceConfig
from schemas.errors import ConfigError
from schemas.event import DEFAULT_MAX_FUTURE_MS, ParserConfig
from schemas.formats import BUILT_IN, Format
from schemas.names import DEFAULT_PREFIX, Names
from schemas.sequence import DEFAULT_CAPACITY
from schemas.vocabulary import DEFAULT_ACTIONS, DEFAULT_SURFACES, Vocabulary
from slipstream.log_columns import checked_columns

ENV_PREFIX = "SLIPSTREAM_"
CONFIG_VARIABLE = "SLIPSTREAM_CONFIG"
DEFAULT_FILE = Path("slipstream.toml")
DEFAULT_DATA_DIR = Path("var")

Provider = Literal["tensorrt", "cuda", "cpu"]


def _checked_prefix(prefix: str) -> str:
    try:
        return Names(prefix).prefix
    except ConfigError as error:
        raise ValueError(str(error)) from None


class Settings(BaseSettings):
    """Every setting of every command. A field's description is its documentation."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    # Where things are.
    kafka_bootstrap: str | None = Field(
        None, description="Kafka's host:port list; unset: the local stack of `data_dir`"
    )
    kafka_options: dict[str, str] = Field(
        default_factory=dict, description="More librdkafka options, such as SASL and TLS, as a table or a JSON object"
    )
    redis_url: SecretStr | None = Field(
        None, description="redis:// or rediss:// URL, which may hold a password; unset: the local stack of `data_dir`"
    )
    prefix: Annotated[str, AfterValidator(_checked_prefix)] = Field(
        DEFAULT_PREFIX, description="Begins every topic, group and key: deployments side by side differ in it"
    )
    data_dir: Path = Field(DEFAULT_DATA_DIR, description="Where the local stack, trained models and reports are kept")
    bundle: Path | None = Field(None, description="The model bundle; unset: `<data_dir>/model`")

    # What events may say.
    actions: tuple[str, ...] = Field(
        DEFAULT_ACTIONS, description="Names of actions; a name's position is its code; add only at the end"
    )
    surfaces: tuple[str, ...] = Field(DEFAULT_SURFACES, description="Names of surfaces, likewise")
    unknown_names: Literal["reject", "other"] = Field(
        "reject", description="What becomes of an unknown action or surface"
    )
    max_future_ms: int = Field(
        DEFAULT_MAX_FUTURE_MS, ge=0, description="How far an event may be ahead of its arrival, ms"
    )
    max_age_ms: int = Field(0, ge=0, description="Events older than this at arrival are dead letters, ms; 0 = any age")

    # What logs look like.
    log_columns: Annotated[dict[str, str], AfterValidator(checked_columns)] = Field(
        default_factory=dict,
        description="How log files name their columns, for each command that reads one: its options user, item, action, surface, "
        "timestamp, timestamp_unit, item_ids, as a table or a JSON object",
    )
    item_names: Path | None = Field(
        None,
        description="A text file of your items' string ids, one a line: `rank` and `state show` print these instead of hashes",
    )

    formats: tuple[Format, ...] = Field(
        BUILT_IN,
        min_length=1,
        description="Formats of raw messages that are accepted: json, msgpack, avro, protobuf; the first byte tells them apart",
    )
    schema_registry_url: SecretStr | None = Field(
        None, description="http(s):// URL of the schema registry of avro and protobuf, which may hold a password"
    )
    schema_registry_options: dict[str, str] = Field(
        default_factory=dict,
        description="More options of Confluent's registry client, such as logins, as a table or a JSON object",
    )

    # Topics.
    partitions: int = Field(
        4, ge=1, le=10_000, description="Partitions of each topic that `topics create` makes: they bound parallelism"
    )
    replication_factor: int = Field(
        1, ge=1, le=9, description="Replicas of each topic that `topics create` makes; 3 in production"
    )

    # Sequences.
    sequence_capacity: int = Field(
        DEFAULT_CAPACITY, ge=1, le=1 << 16, description="Newest events that a user's sequence keeps"
    )
    sequence_store: Literal["memory", "rocksdb"] = Field(
        "memory",
        description="Where a sequence worker's tables are; rocksdb needs the extra `rocksdb` and `sequence_dir`",
    )
    sequence_dir: Path | None = Field(
        None, description="A sequence worker's own directory, which rocksdb keeps its tables in; unset: a temporary one"
    )
    sequence_store_memory_bytes: int = Field(
        256 << 20,
        ge=16 << 20,
        description="Memory of a sequence worker's rocksdb, for all its partitions together, bytes",
    )

    # States.
    providers: tuple[Provider, ...] = Field(
        ("cpu",), min_length=1, description="Execution providers in order of preference"
    )
    require_provider: Provider | None = Field(None, description="Refuse to start on a provider below this one")
    precision: Literal["auto", "fp32", "fp16"] = Field(
        "auto", description="Of the graphs' numbers: auto is fp32 on the CPU and fp16 above it"
    )
    threads: int = Field(1, ge=1, le=256, description="Threads of each ONNX Runtime session")
    cache_dir: Path | None = Field(
        None,
        description="Where TensorRT's engines are kept; unset: `slipstream/tensorrt` in the user's cache directory",
    )
    state_ttl_s: int = Field(
        0, ge=0, description="Seconds after which a state that is not refreshed expires; 0 = never"
    )
    hot_cache_bytes: int = Field(
        256 << 20, ge=0, description="Memory of an encoder for states that it wrote lately, bytes"
    )
    max_batch_users: int = Field(64, ge=1, le=4096, description="Most users that an encoder refreshes at once")
    backfill_from_records: int = Field(
        200,
        ge=0,
        description="A partition whose committed offset is further behind is filled beside its live records, which go first",
    )
    backfill_share: float = Field(
        0.5, ge=0.01, le=1, description="Most of an encoder's time that filling takes while live records come"
    )
    backfill_run_ms: float = Field(
        20.0, ge=0.1, description="How long it takes at a time, and so a live record may wait for it, ms"
    )
    stale_after_ms: int = Field(
        0, ge=0, description="A state older than this is STALE to `rank` and `state show`, ms; 0 = never"
    )

    # Running.
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port of a stage's /metrics, /live and /ready over HTTP; 0 = none"
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address that this port listens on; in a container 0.0.0.0, so that others reach it"
    )
    session_timeout_ms: int = Field(
        6000,
        ge=1000,
        le=60_000,
        description="A stage's worker that Kafka hears nothing of for so long loses its partitions to others, ms; in the "
        "brokers' `group.min.session.timeout.ms` (6000) and `group.max.session.timeout.ms`",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What a stage logs, at least")
    log_format: LogFormat = Field(
        "text", description="How: lines for people, or one JSON object a line (docs/telemetry.md)"
    )
    log_user_data: bool = Field(
        False,
        description="Log the messages of unexpected errors too, which may hold user ids, not their class and stack alone",
    )
    traces_endpoint: SecretStr | None = Field(
        None,
        description="Where a stage sends traces: a collector's URL for OTLP over HTTP, e.g. `http://localhost:4318/v1/traces`, "
        "which may hold a password; needs the extra `otel`; unset: none are made",
    )
    trace_ratio: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Share of the events that are traced, of those whose message has no `traceparent`",
    )

    _file: ClassVar[Path | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, cls._file)

    @property
    def names(self) -> Names:
        return Names(self.prefix)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.actions, self.surfaces)

    @property
    def parser(self) -> ParserConfig:
        """What ingest accepts, and the oracle too."""
        return ParserConfig(self.vocabulary, self.unknown_names, self.max_future_ms, self.max_age_ms, self.formats)

    @property
    def traces(self) -> TraceConfig | None:
        """Where spans go; None = none are made."""
        if self.traces_endpoint is None:
            return None
        return TraceConfig(self.traces_endpoint.get_secret_value(), self.trace_ratio)

    @property
    def bundle_dir(self) -> Path:
        return self.bundle if self.bundle is not None else self.data_dir / "model"


def load_settings(file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Read the settings. Flags that are None were not given.

    Raises:
        ConfigError: a key is unknown or its value wrong, or the file cannot be read; the message names the key and its place.
    """
    path = _settings_file(file)
    _refuse_unknown_variables()
    sources: type[Settings] = type("Settings", (Settings,), {"_file": path, "__module__": __name__})
    try:
        settings = sources(**{key: value for key, value in flags.items() if value is not None})
        _ = settings.vocabulary  # its own checks
    except ValidationError as error:
        wrong = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors(include_input=False))
        raise ConfigError(f"settings ({_places(path)}): {wrong}") from None
    except (ValueError, OSError) as error:  # not TOML, or a variable that should hold JSON and does not
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise ConfigError(f"settings ({_places(path)}): {error}{cause}") from None
    return settings


def setting_sources(file: Path | None, flags: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Where the value of each setting comes from: `flag`, `environment`, a file's path, or `default`; the first one wins. Tables
    are merged, so theirs may come from several.

    Args:
        file, flags: as load_settings took them, without an error.
    """
    path = _settings_file(file)
    given: dict[str, Mapping[str, Any]] = {
        "flag": {key: value for key, value in flags.items() if value is not None},
        "environment": EnvSettingsSource(Settings)(),
    }
    if path is not None:
        given[str(path)] = TomlConfigSettingsSource(Settings, path)()
    sources = {}
    for name, field in Settings.model_fields.items():
        found = [where for where, values in given.items() if name in values] or ["default"]
        sources[name] = tuple(found if field.annotation == dict[str, str] else found[:1])
    return sources


def _settings_file(file: Path | None) -> Path | None:
    named = file or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None and not named.is_file():
        raise ConfigError(f"the settings file {named} does not exist: correct --config or {CONFIG_VARIABLE}")
    if named is None and DEFAULT_FILE.is_file():
        return DEFAULT_FILE
    return named


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}
    unknown = sorted(name for name in os.environ if name.upper().startswith(ENV_PREFIX) and name.upper() not in known)
    if unknown:
        raise ConfigError(f"environment: {', '.join(unknown)}: no such setting; `slipstream config show` lists all")


def _places(path: Path | None) -> str:
    return f"flags, environment {ENV_PREFIX}*" + (f", {path}" if path else "")
