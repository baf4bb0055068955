"""The hand-over between two threads of the loop."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A bounded hand-over from one thread to another. With ``limit=1`` it is the latest-frame slot."""

    def __init__(self, limit: int) -> None:
        self._items: deque[T] = deque()
        self._limit = limit
        self._ended = False
        self._changed = threading.Condition()

    def put(self, item: T, wait: bool) -> int:
        """Hand over an item: wait for room, or displace the oldest. Ignored once the channel has ended.

        Returns:
            How many items were displaced.
        """
        displaced = 0
        with self._changed:
            while wait and len(self._items) >= self._limit and not self._ended:
                self._changed.wait()
            if self._ended:
                return 0
            while len(self._items) >= self._limit:
                self._items.popleft()
                displaced += 1
            self._items.append(item)
            self._changed.notify_all()
        return displaced

    def get(self) -> T | None:
        """Wait for the next item; None once the channel has ended and is empty."""
        with self._changed:
            while not self._items and not self._ended:
                self._changed.wait()
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
        return item

    def take(self) -> T | None:
        """The next item if there is one, without waiting."""
        with self._changed:
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
        return item

    def end(self) -> None:
        """Nothing more will be put; what is inside can still be got."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> int:
        """End, and let go of what is inside; returns how many items that were."""
        with self._changed:
            self._ended = True
            lost = len(self._items)
            self._items.clear()
            self._changed.notify_all()
        return lost
