"""A way to a server on loopback that can be cut off for a while, as a network fails: nothing arrives, and nobody is told."""

from __future__ import annotations

import selectors
import socket
import threading
from typing import Self
from urllib.parse import urlsplit


class Way:
    """Listens on ``url`` and forwards to a server, but for ``cut`` … ``mend``. A context manager."""

    def __init__(self, server: str) -> None:
        address = urlsplit(server)
        self._server = address.hostname, address.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._open, self._ended = threading.Event(), False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open.set()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._open.set()
        # Wakes the thread that accepts.
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()
        self._drop()

    def cut(self) -> None:
        """From now on nothing is forwarded. What is under way is lost."""
        self._open.clear()

    def mend(self) -> None:
        """Forwards what comes in new connections; those from before are closed."""
        self._drop()
        self._open.set()

    def _drop(self) -> None:
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._pairs = []

    def _accept(self) -> None:
        while not self._ended:
            client, _ = self._listener.accept()
            if not self._open.is_set():
                # A connection that nobody answers.
                self._pairs.append((client, client))
                continue
            pair = client, socket.create_connection(self._server)
            self._pairs.append(pair)
            threading.Thread(target=self._forward, args=(pair,), daemon=True).start()

    def _forward(self, pair: tuple[socket.socket, socket.socket]) -> None:
        other = {pair[0]: pair[1], pair[1]: pair[0]}
        with selectors.DefaultSelector() as ready:
            try:
                for end in pair:
                    ready.register(end, selectors.EVENT_READ)
                while True:
                    for key, _ in ready.select(timeout=0.5):
                        end = key.fileobj
                        data = end.recv(2**16)  # type: ignore[union-attr]
                        if not self._open.is_set():
                            return
                        if not data:
                            other[end].close()  # type: ignore[index]
                            return
                        other[end].sendall(data)  # type: ignore[index]
            except (OSError, ValueError):
                # Closed by ``mend``, or by one of both sides.
                return
