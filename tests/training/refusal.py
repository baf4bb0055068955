"""How refusals of data are read in tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_kp.errors import DataError


def problems(call: Callable[[], object]) -> tuple[str, ...]:
    """The lines of the DataError that a call ends with."""
    with pytest.raises(DataError) as caught:
        call()
    assert all(line and "\n" not in line for line in caught.value.problems)
    return caught.value.problems


def problem(call: Callable[[], object]) -> str:
    """The one line of the DataError that a call ends with."""
    found = problems(call)
    assert len(found) == 1, found
    return found[0]
