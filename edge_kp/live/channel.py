"""The hand-over between threads of the loop."""

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
        """Hand over an item: wait for room, or displace the oldest.

        Returns:
            How many items were lost: displaced ones, or this one where the channel has ended.
        """
        displaced = 0
        with self._changed:
            while wait and len(self._items) >= self._limit and not self._ended:
                self._changed.wait()
            if self._ended:
                return 1
            while len(self._items) >= self._limit:
                self._items.popleft()
                displaced += 1
            self._items.append(item)
            self._changed.notify_all()
        return displaced

    def get(self, timeout: float | None = None) -> T | None:
        """The next item; None once the channel has ended and is empty, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended, timeout)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
        return item

    def take(self) -> T | None:
        """The next item if there is one, without waiting."""
        with self._changed:
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
        return item

    @property
    def ended(self) -> bool:
        with self._changed:
            return self._ended

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


class Inbox(Generic[T]):
    """The newest item of each of several threads, for one thread that takes all there is at once.

    Args:
        count: threads that put, each into a slot of its own.
    """

    def __init__(self, count: int) -> None:
        self._slots: dict[int, T] = {}
        self._open = set(range(count))
        self._changed = threading.Condition()

    def put(self, slot: int, item: T, wait: bool) -> int:
        """Fill a slot: wait until it is empty, or displace what is in it.

        Returns:
            How many items were lost: the displaced one, or this one where the slot has ended.
        """
        with self._changed:
            while wait and slot in self._slots and slot in self._open:
                self._changed.wait()
            if slot not in self._open:
                return 1
            displaced = int(slot in self._slots)
            self._slots[slot] = item
            self._changed.notify_all()
        return displaced

    def take(self) -> list[T]:
        """Wait for items; all there are, in the order of their slots. Empty once every slot has ended."""
        with self._changed:
            while not self._slots and self._open:
                self._changed.wait()
            items = [self._slots[slot] for slot in sorted(self._slots)]
            self._slots.clear()
            self._changed.notify_all()
        return items

    def end(self, slot: int) -> None:
        """Nothing more will be put into a slot; what is in it can still be taken."""
        with self._changed:
            self._open.discard(slot)
            self._changed.notify_all()

    def close(self) -> int:
        """End all slots, and let go of what is in them; returns how many items that were."""
        with self._changed:
            self._open.clear()
            lost = len(self._slots)
            self._slots.clear()
            self._changed.notify_all()
        return lost
