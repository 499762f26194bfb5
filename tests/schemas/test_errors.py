"""The tree of errors: exit codes are documented, so they are distinct where a script must tell errors apart."""

from __future__ import annotations

import pytest

from schemas import errors
from schemas.errors import ContractError, EventError, SlipstreamError, UnavailableError


def tree(root: type[SlipstreamError]) -> list[type[SlipstreamError]]:
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


def test_every_error_of_the_module_is_in_the_tree() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type)} & set(tree(SlipstreamError))
    assert defined == {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    }


def test_exit_codes_tell_kinds_apart() -> None:
    codes = {error.__name__: error.exit_code for error in tree(SlipstreamError) if error.__module__ == "schemas.errors"}
    assert all(code == 4 for name, code in codes.items() if issubclass(getattr(errors, name), ContractError))
    kinds = {name: code for name, code in codes.items() if not issubclass(getattr(errors, name), ContractError)}
    assert len(set(kinds.values())) == len(kinds)
    assert 0 not in codes.values()


def test_only_what_can_go_through_later_is_retriable() -> None:
    assert [error for error in tree(SlipstreamError) if error.retriable] == [UnavailableError]


def test_a_reason_must_be_a_known_one() -> None:
    with pytest.raises(AssertionError, match="made_up"):
        EventError("made_up", "message")
