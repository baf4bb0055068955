"""The sink behind ``--serve``: hands results to the page's own thread and never waits for it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from edge_kp.errors import SinkError
from edge_kp.extras import install
from edge_kp.live.page.board import Board
from edge_kp.live.page.recording import Recorder
from edge_kp.live.sinks import Draw
from edge_kp.live.statistics import Result, Summary

# What waits in the system for a slow client is old when it gets there, so little may wait.
_SEND_BUFFER = 256 * 1024
_CLOSE_S = 1.0


class PageSink:
    """A web page with the pictures and figures of the run, served from the moment it is made.

    Args:
        port: to serve on; 0 takes any that is free.
        draw: makes the picture of a result; called in a thread of the page, and only while somebody watches.
        summary: the run so far; called once a second.
        recorder: what the record button works on; without it there is no button.
        host: address to serve on. The default can be reached from this machine alone; any other lets
            everybody who reaches it watch and record.
        sources: names of the sources, in the order of ``frame.source``.

    Attributes:
        url: where the page is.

    Raises:
        SinkError: aiohttp is missing, or the port cannot be had.
    """

    def __init__(
        self,
        port: int,
        draw: Draw,
        summary: Callable[[], Summary],
        recorder: Recorder | None = None,
        *,
        host: str = "127.0.0.1",
        sources: Sequence[str] = ("source",),
    ) -> None:
        try:
            from edge_kp.live.page.server import Server
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "aiohttp":
                raise
            raise SinkError(f"the page needs aiohttp: {install('page')}") from error
        bound = _bind(host, port)
        self.url = _url(bound)
        self.name = self.url
        self.source = None
        self._error: BaseException | None = None
        self._board = Board(sources, summary, recorder)
        self._server = Server(
            self._board, draw, recorder, bound, loopback=_is_loopback(bound), on_error=self._fail
        )
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="edge_kp page", daemon=True)
        self._thread.start()
        ready.result()

    def write(self, result: Result) -> None:
        """Show a result; returns at once, whatever the clients do."""
        if self._error is not None:
            raise self._error
        self._server.announce(self._board.put(result))

    def close(self) -> None:
        """End the page and cut off its clients; a second call does nothing."""
        self._server.stop()
        self._thread.join(_CLOSE_S)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error

    def _serve(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self._server.run(ready))
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            self._fail(error)


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket, or one line that says why not."""
    if not 0 <= port <= 65535:
        raise SinkError(f"port {port}: there is no such port: choose a --serve port from 1024 to 65535")
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SinkError(
                f"port {port} is used by another program: choose another --serve port, such as "
                f"{port + 1 if port < 65535 else 8080}"
            ) from error
        if error.errno == errno.EACCES:
            raise SinkError(
                f"port {port}: permission denied: choose a --serve port from 1024 up, such as 8080"
            ) from error
        raise SinkError(f"no page on {host} port {port}: {error.strerror or error}") from error
    except (TypeError, UnicodeError) as error:  # Python cannot even ask the system for such a name
        raise SinkError(f"no page on {host}: no such host: check the name after --bind") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # connections inherit it
    return bound


def _is_loopback(bound: socket.socket) -> bool:
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # every address of this machine: its name is one
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
