"""The page's own loop: what browsers may ask for, and what they get."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from edge_kp.errors import SinkError
from edge_kp.live.page.board import Board
from edge_kp.live.page.encoding import Pictures, encode
from edge_kp.live.page.guard import own_names, refused_change, refused_host, security_headers
from edge_kp.live.page.recording import Recorder
from edge_kp.live.sinks import Draw
from edge_kp.live.statistics import Result

log = logging.getLogger(__name__)
# Port scanners, broken requests and clients that vanish are no news.
_unheard = logging.getLogger(f"{__name__}.clients")
_unheard.propagate = False
_unheard.addHandler(logging.NullHandler())

HTML = Path(__file__).parents[2] / "assets" / "page.html"

# A stream without news repeats its picture after so long, which is how a dead client is found out.
REPEAT_S = 5.0
# A client that takes in nothing for so long is cut off; a page that wakes up again starts anew.
STALLED_S = 15.0
MAX_STREAMS = 32
_SHUTDOWN_S = 0.2
_BOUNDARY = b"--picture\r\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves the page on a bound socket until it is told to stop; made in one thread, run in another.

    Args:
        loopback: only this machine can reach the socket.
        on_error: told what went wrong while drawing or counting, which is a fault of the program.
    """

    def __init__(
        self,
        board: Board,
        draw: Draw,
        recorder: Recorder | None,
        bound: socket.socket,
        *,
        loopback: bool,
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._board, self._draw, self._recorder = board, draw, recorder
        self._socket, self._on_error = bound, on_error
        self._names = None if loopback else own_names()
        self._html = HTML.read_text(encoding="utf-8")
        self._headers = security_headers(self._html)
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="edge_kp page pictures")
        self._pictures: list[Pictures] = []
        self._streams: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self._news: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def announce(self, source: int) -> None:
        """A source has a newer result; from any thread. Wakes the loop once, however often it is told."""
        with self._lock:
            first = not self._news
            self._news.add(source)
        if first:
            self._call(self._wake)

    def stop(self) -> None:
        """End :meth:`run` soon; from any thread."""
        if self._stop is not None:
            self._call(self._stop.set)

    def _call(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    def _wake(self) -> None:
        with self._lock:
            news, self._news = self._news, set()
        for source in news:
            self._pictures[source].arrived()

    async def run(self, ready: Future[None]) -> None:
        """Serve; ``ready`` is done once the page can be asked for."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._pictures = [Pictures(self._board, i, self._encode) for i in range(len(self._board.sources))]
        runner = web.AppRunner(
            self._app(),
            access_log=None,
            logger=_unheard,
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await runner.setup()
        ticker = asyncio.create_task(self._tick())
        try:
            await web.SockSite(runner, self._socket).start()
            ready.set_result(None)
            await self._stop.wait()
        finally:
            ticker.cancel()
            for stream in self._streams:
                stream.cancel()
            await runner.cleanup()
            self._encoder.shutdown(wait=False, cancel_futures=True)

    def _app(self) -> web.Application:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            why = refused_host(request.headers, self._names)
            if why is None and request.method not in ("GET", "HEAD"):
                why = refused_change(request.headers, request.scheme)
            if why is not None:
                return web.json_response({"error": why}, status=403)
            return await handler(request)

        async def secure(_request: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(self._headers)

        app = web.Application(middlewares=[guard], client_max_size=4096)
        app.on_response_prepare.append(secure)
        app.router.add_get("/", self._page)
        app.router.add_get("/favicon.ico", self._nothing)
        app.router.add_get("/state", self._state)
        app.router.add_get(r"/stream/{source:[0-9]{1,4}}", self._stream, allow_head=False)
        app.router.add_get(r"/picture/{source:[0-9]{1,4}}.jpg", self._picture, allow_head=False)
        app.router.add_post("/record/{what:start|stop}", self._record)
        return app

    async def _tick(self) -> None:
        try:
            while True:
                self._board.sample()
                await asyncio.sleep(1)
        except Exception as error:
            self._on_error(error)

    async def _encode(self, result: Result) -> bytes:
        assert self._loop is not None
        try:
            return await self._loop.run_in_executor(self._encoder, encode, self._draw, result)
        except Exception as error:
            self._on_error(error)
            raise

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._html, content_type="text/html")

    async def _nothing(self, _request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _state(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        known = int(since) if since.isascii() and since.isdigit() and len(since) < 12 else 0
        return web.json_response(self._board.state(known, request.query.get("run", "")))

    def _pictures_of(self, request: web.Request) -> Pictures:
        source = int(request.match_info["source"])
        if source >= len(self._pictures):
            raise web.HTTPNotFound(text=f"there is no source {source}")
        return self._pictures[source]

    async def _picture(self, request: web.Request) -> web.Response:
        """The newest picture alone, for a page with more sources than a browser has connections."""
        try:
            _, jpeg = await asyncio.wait_for(self._pictures_of(request).newer(0), 1)
        except asyncio.TimeoutError:
            return web.json_response({"error": "no frame yet"}, status=503)
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        pictures = self._pictures_of(request)
        task = asyncio.current_task()
        if len(self._streams) >= MAX_STREAMS or task is None:
            return web.json_response({"error": "too many watch already: close other pages"}, status=503)
        response = web.StreamResponse()
        response.content_type = "multipart/x-mixed-replace"
        response.headers["Content-Type"] += "; boundary=picture"
        self._streams.add(task)
        try:
            await response.prepare(request)
            await response.write(_BOUNDARY)
            number, jpeg = 0, b""
            while True:
                with suppress(asyncio.TimeoutError):
                    number, jpeg = await asyncio.wait_for(pictures.newer(number), REPEAT_S)
                if jpeg:
                    # The boundary comes at once: browsers show a picture only when they see its end.
                    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                    await asyncio.wait_for(
                        response.write(head + jpeg + b"\r\n" + _BOUNDARY), timeout=STALLED_S
                    )
        except (asyncio.TimeoutError, ConnectionError):
            return response
        finally:
            self._streams.discard(task)
            if request.transport is not None:  # what is still on its way is of no use, and may never leave
                request.transport.abort()

    async def _record(self, request: web.Request) -> web.Response:
        if self._recorder is None:
            return web.json_response({"error": "this run has nothing to record with"}, status=404)
        start = request.match_info["what"] == "start"
        try:
            await _in_thread(self._recorder.start if start else self._recorder.stop)
        except SinkError as error:
            return web.json_response({"error": str(error), **(self._board.recording() or {})}, status=409)
        return web.json_response(self._board.recording())


async def _in_thread(function: Callable[[], object]) -> None:
    """Call what may hang on a dead disk; its thread is then left behind and keeps nothing from ending."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    loop = done.get_loop()

    def finish(error: Exception | None) -> None:
        if done.done():  # the client left
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(None)

    def call() -> None:
        error = None
        try:
            function()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=call, name="edge_kp page recording", daemon=True).start()
    await done
