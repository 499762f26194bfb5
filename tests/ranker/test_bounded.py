"""A deadline of a call, and URLs of clusters."""

from __future__ import annotations

import threading

import pytest
from redis.cluster import LoadBalancingStrategy

from ranker.bounded import Deadline
from ranker.connection import cluster
from ranker.reader import StateReader
from schemas.errors import ConfigError
from tests.ranker.states import LAYOUT


def test_what_is_left_shrinks_within_a_call_and_is_whole_outside_of_one() -> None:
    deadline = Deadline(60.0)
    assert deadline.left_s == 60.0
    with deadline.call():
        first = deadline.left_s
        while deadline.left_s == first:
            pass
        assert deadline.left_s < first <= 60.0
    assert deadline.left_s == 60.0


def test_a_call_that_raised_is_over() -> None:
    deadline = Deadline(60.0)
    with pytest.raises(KeyError), deadline.call():
        raise KeyError
    assert deadline.left_s == 60.0


def test_each_thread_has_its_own_call() -> None:
    deadline, seen = Deadline(60.0), []
    with deadline.call():
        thread = threading.Thread(target=lambda: seen.append(deadline.left_s))
        thread.start()
        thread.join()
    assert seen == [60.0]


def test_a_clusters_url() -> None:
    assert cluster("redis://h:1/0") is None
    assert cluster("redis+cluster://h:1?a=1") == ("redis://h:1?a=1", {"load_balancing_strategy": None})
    url, options = cluster("rediss+cluster://u:p%25@h:1?read_from_replicas=yes&ssl_ca_certs=/a%20b") or ("", {})
    assert url == "rediss://u:p%25@h:1?ssl_ca_certs=%2Fa+b"
    assert options["load_balancing_strategy"] is LoadBalancingStrategy.ROUND_ROBIN


@pytest.mark.parametrize("url", ["redis+cluster://h:1?read_from_replicas=perhaps", "http+cluster://h:1"])
def test_a_clusters_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="Redis URL"):
        StateReader(url, LAYOUT)


def test_no_deadline_is_refused() -> None:
    with pytest.raises(ConfigError, match="deadline of 0 ms"):
        StateReader("redis://h", LAYOUT, deadline_ms=0)
