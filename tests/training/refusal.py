"""How refusals of data are read in tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_kp.errors import DataError


def problem(call: Callable[[], object]) -> str:
    """The one line of the DataError that a call ends with."""
    with pytest.raises(DataError) as caught:
        call()
    (line,) = caught.value.problems
    assert "\n" not in line
    return line
