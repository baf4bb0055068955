"""A network camera with faults on command, for :mod:`benchmarks.soak`: MJPEG of a clip over HTTP, for ever.

``python -m benchmarks.soak_camera CLIP FPS`` prints its port, then obeys lines on stdin: ``off S`` (no
connection for S seconds), ``stall S`` (connected and silent), ``corrupt N`` (frames that are cut short),
``resize W H`` (all frames from now on). It ends with its stdin.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress

import cv2

from edge_kp.types import Array

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"


class Camera:
    """Serves the pictures to every client, each from a thread of its own."""

    def __init__(self, clip: str, fps: float) -> None:
        capture = cv2.VideoCapture(clip)
        self._images: list[Array] = []
        while (read := capture.read())[0]:
            self._images.append(read[1])
        self._fps = fps
        self._jpegs: list[bytes] = []
        self.resize(*self._images[0].shape[1::-1])
        self._silent_until = 0.0
        self._corrupt = 0
        self._clients: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def resize(self, width: int, height: int) -> None:
        resized = (cv2.resize(image, (width, height)) for image in self._images)
        self._jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in resized]

    def stall(self, seconds: float) -> None:
        self._silent_until = time.monotonic() + seconds

    def corrupt(self, count: int) -> None:
        self._corrupt = count

    def off(self, seconds: float) -> None:
        self._listener.close()
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        time.sleep(seconds)
        while True:  # somebody's outgoing connection may have taken the port meanwhile, and gives it back
            with suppress(OSError):
                self._listener = socket.create_server(("127.0.0.1", self.port))
                break
            time.sleep(0.2)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        with suppress(OSError), client:
            client.recv(65536)
            client.sendall(HEAD)
            due, number = time.monotonic(), 0
            while True:
                due = max(due + 1 / self._fps, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
                while time.monotonic() < self._silent_until:
                    time.sleep(0.01)
                jpegs = self._jpegs
                data = jpegs[number % len(jpegs)]
                if self._corrupt > 0:
                    self._corrupt -= 1
                    data = data[: len(data) // 3]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                client.sendall(head.encode() + data + b"\r\n")
                number += 1
        self._clients.discard(client)


def main() -> None:
    camera = Camera(sys.argv[1], float(sys.argv[2]))
    print(camera.port, flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        getattr(camera, what)(*(int(n) if what in ("corrupt", "resize") else float(n) for n in numbers))


if __name__ == "__main__":
    main()
