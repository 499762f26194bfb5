"""Training a ranker with a progress bar for people: what `slipstream train-ranker` does."""

from __future__ import annotations

from encoder.evaluation.protocol import Split
from ranker.head.config import RankerConfig
from schemas.errors import ConfigError


def tasks_of(config: RankerConfig, split: Split) -> tuple[tuple[str, int], ...]:
    """The tasks that the log can teach, with the codes of their actions.

    Raises:
        ConfigError: there are none.
    """
    data, codes = split.data, split.train_log.vocabulary.action_codes
    seen = set(data.actions[split.trained].tolist())
    tasks = tuple((name, codes[name]) for name in config.tasks if codes.get(name) in seen)
    if not tasks:
        raise ConfigError(
            f"tasks: none of {', '.join(config.tasks)} is an action of the log before T, which has "
            f"{', '.join(name for name, code in codes.items() if code in seen)}: set tasks to some of these"
        )
    return tasks
