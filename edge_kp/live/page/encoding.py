"""Pictures for browsers, encoded while somebody watches.

A client asks for the newest picture when it has taken in the one before, so a slow one skips pictures and
costs no more memory than the picture on its way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import cv2

from edge_kp.errors import SinkError
from edge_kp.live.page.board import Board
from edge_kp.live.sinks import Draw
from edge_kp.live.statistics import Result

PICTURE_FPS = 25.0
QUALITY = 80
# Larger frames are shown smaller: a browser would do the same, and the network is spared.
LONGEST_SIDE = 1920


class Pictures:
    """The pictures of one source: encoded when a client asks, once for all clients."""

    def __init__(self, board: Board, source: int, encode: Callable[[Result], Awaitable[bytes]]) -> None:
        self._board, self._source, self._encode = board, source, encode
        self._turn = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._number, self._jpeg = 0, b""
        self._due = 0.0

    def arrived(self) -> None:
        """There is a newer result on the board."""
        self._arrived.set()

    async def newer(self, number: int) -> tuple[int, bytes]:
        """The newest picture and its number, once there is one after ``number``."""
        async with self._turn:
            # A picture that has just been encoded for somebody else is new enough.
            while self._number <= number or (self._arrived.is_set() and time.monotonic() >= self._due):
                await self._arrived.wait()
                await asyncio.sleep(max(0.0, self._due - time.monotonic()))
                self._arrived.clear()
                self._due = time.monotonic() + 1 / PICTURE_FPS
                newest, result = self._board.newest(self._source)
                if result is None:
                    continue
                try:
                    self._jpeg = await self._encode(result)
                except asyncio.CancelledError:  # this client left: the next one encodes
                    self._arrived.set()
                    raise
                self._number = newest
            return self._number, self._jpeg


def encode(draw: Draw, result: Result) -> bytes:
    """The picture of a result as JPEG."""
    image = draw(result)
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not ok:
        raise SinkError(f"no JPEG can be made of a {width}x{height} picture for the page")
    return data.tobytes()
