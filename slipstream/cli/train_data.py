"""A log's columns on disk, for `slipstream train`: made once, and made again when the log or how it is read has changed."""

from __future__ import annotations

from pathlib import Path

from encoder.train_build import build_data
from encoder.train_data import TrainingData, in_memory, open_data, seal, source_of, write_data
from schemas.errors import ConfigError, LogError
from slipstream.cli.logs import LogArguments
from stream.logs import LogRows
from stream.movielens import FILES
from stream.topic_log import PREFIX


def data_on_disk(arguments: LogArguments, directory: Path) -> TrainingData:
    """The log in a directory: what lies there if it was made from the same log, else made now.

    Raises:
        ConfigError, PrerequisiteError, LogError: as stream.logs.load_log.
    """
    if arguments.source.startswith(PREFIX):
        raise ConfigError(
            f"--on-disk: {arguments.source} is read into memory: leave it out, or write the topic to a file"
        )
    vocabulary = arguments.ctx.settings.vocabulary
    source = _described(arguments)
    if source_of(directory) == source:
        return open_data(directory)
    arguments.ctx.say(f"writing the log's columns into {directory}")
    if arguments.source in FILES:  # whose ties are spread, which takes all of a log at once
        write_data(in_memory(arguments.load().log), directory)
        seal(directory, vocabulary, source)
        return open_data(directory)
    rows = LogRows(arguments.source, vocabulary, arguments.columns, arguments.options)
    data = build_data(rows, vocabulary, directory, source)
    arguments.say_skipped(rows.skipped.total(), rows.examples)
    return data


def _described(arguments: LogArguments) -> str:
    """Changes with the file and with whatever changes how it is read."""
    how = f"{arguments.columns} {arguments.options} {arguments.ctx.settings.vocabulary}"
    if arguments.source in FILES:
        return f"{arguments.source} {how}"
    path = Path(arguments.source).resolve()
    try:
        stat = path.stat()
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from None
    return f"{path} of {stat.st_size} bytes, modified at {stat.st_mtime_ns} ns {how}"
