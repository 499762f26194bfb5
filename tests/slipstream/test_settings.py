from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigError
from slipstream.settings import Settings, load_settings, setting_sources


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in [name for name in os.environ if name.upper().startswith("SLIPSTREAM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_flags_count_more_than_the_environment_and_that_more_than_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "slipstream.toml").write_text('prefix = "from-file"\npartitions = 7\nthreads = 3\n')
    monkeypatch.setenv("SLIPSTREAM_PREFIX", "from-env")
    monkeypatch.setenv("SLIPSTREAM_PARTITIONS", "8")
    settings = load_settings(None, {"prefix": "from-flag", "partitions": None})
    assert (settings.prefix, settings.partitions, settings.threads) == ("from-flag", 8, 3)


def test_the_source_of_each_value_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "slipstream.toml").write_text(
        'prefix = "f"\npartitions = 7\nthreads = 3\n[kafka_options]\na = "1"\nb = "1"\n'
    )
    monkeypatch.setenv("SLIPSTREAM_PREFIX", "from-env")
    monkeypatch.setenv("slipstream_partitions", "8")
    monkeypatch.setenv("SLIPSTREAM_BUNDLE", "")  # as if it were not set
    monkeypatch.setenv("SLIPSTREAM_KAFKA_OPTIONS", '{"a": "2"}')
    flags = {"prefix": "from-flag", "data_dir": None}
    sources = setting_sources(None, flags)
    assert list(sources) == list(Settings.model_fields)
    assert {name: of for name, of in sources.items() if of != ("default",)} == {
        "kafka_options": ("environment", "slipstream.toml"),
        "prefix": ("flag",),
        "partitions": ("environment",),
        "threads": ("slipstream.toml",),
    }
    assert load_settings(None, flags).kafka_options == {"a": "2", "b": "1"}


def test_defaults_need_nothing() -> None:
    settings = load_settings(None, {})
    assert settings.names.engagements == "slipstream.engagements"
    assert settings.vocabulary.action_codes["other"] == 0
    assert settings.bundle_dir == Path("var/model")


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("unheard_of = 1", "unheard_of"),
        ("partitions = 0", "partitions"),
        ('partitions = "many"', "partitions"),
        ('prefix = "a_b"', "prefix"),
        ('actions = ["save"]', "actions"),
        ('actions = ["other", "save", "save"]', "actions"),
        ('providers = ["abacus"]', "providers"),
        ('[log_columns]\nwho = "uid"', "no 'who' here: there are user, item"),
        ('[log_columns]\ntimestamp_unit = "minutes"', "log_columns.*timestamp_unit 'minutes': choose from s, ms"),
        ("not toml", "slipstream.toml"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_key(tmp_path: Path, file: str, named: str) -> None:
    (tmp_path / "slipstream.toml").write_text(file)
    with pytest.raises(ConfigError, match=named):
        load_settings(None, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [("SLIPSTREAM_PARTITIONZ", "4"), ("SLIPSTREAM_PARTITIONS", "four"), ("SLIPSTREAM_KAFKA_OPTIONS", "{")],
)
def test_a_wrong_variable_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name.removeprefix("SLIPSTREAM_").lower() + "|" + name):
        load_settings(None, {})


def test_a_named_file_must_exist() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_settings(Path("nowhere.toml"), {})


def test_the_redis_password_is_not_shown() -> None:
    settings = load_settings(None, {"redis_url": "redis://:hunter2@127.0.0.1/0"})
    assert "hunter2" not in repr(settings) + str(settings.model_dump(mode="json"))


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
