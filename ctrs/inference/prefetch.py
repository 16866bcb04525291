"""Work beside the network: a thread that reads ahead and a thread that writes behind (GDAL and torch free the GIL)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

READ_AHEAD = 2
"""Items that wait between the reader and the network."""
WRITE_BEHIND = 1
"""Items that wait between the network and the writer."""

_PATIENCE_S = 0.1
"""How long a thread sleeps before it looks whether the other side has given up."""


@dataclass(frozen=True)
class _Failure:
    error: BaseException


class _End:
    pass


class ReadAhead(Generic[Item]):
    """Runs an iterator in a thread of its own, at most ``depth`` items ahead of whoever takes them.

    A network on the CPU computes on all cores at once, and each step of it waits for the slowest: a thread that works
    beside it delays it by as long as it works, and all cores wait meanwhile. So while the network is at work, a reader
    that calls ``pause`` between pieces of its work rests there as long as an item waits already, and goes on when the
    network is done and its result is being blended, on one core.

    Args:
        depth: Items that wait at most.
    """

    def __init__(self, depth: int = READ_AHEAD) -> None:
        self._waiting: queue.Queue[Item | _Failure | _End] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._cores_free = threading.Event()
        self._cores_free.set()

    def pause(self) -> None:
        """Rest while the network is at work, unless it would have to wait for the next item."""
        while not (self._cores_free.is_set() or self._waiting.empty() or self._stopped.is_set()):
            self._cores_free.wait(_PATIENCE_S)

    @contextmanager
    def network_at_work(self) -> Iterator[None]:
        """Have the cores for a network on the CPU while the block runs."""
        self._cores_free.clear()
        try:
            yield
        finally:
            self._cores_free.set()

    def items(self, items: Iterator[Item]) -> Generator[Item]:
        """Yield the items of an iterator that runs in its own thread.

        Errors of the iterator are raised here. When this generator is closed, the thread ends.
        """
        thread = threading.Thread(target=self._work, args=(items,), name="ctrs-read-ahead", daemon=True)
        thread.start()
        try:
            while True:
                item = self._waiting.get()
                if isinstance(item, _End):
                    return
                if isinstance(item, _Failure):
                    raise item.error
                yield item
        finally:
            self._stopped.set()
            thread.join()

    def _work(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                self._put(item)
                if self._stopped.is_set():
                    return
            self._put(_End())
        except BaseException as error:  # handed to the caller's thread, interrupts included
            self._put(_Failure(error))

    def _put(self, item: Item | _Failure | _End) -> None:
        while not self._stopped.is_set():
            try:
                self._waiting.put(item, timeout=_PATIENCE_S)
            except queue.Full:
                continue
            return


class WriteBehind(AbstractContextManager["WriteBehind[Item]"], Generic[Item]):
    """Calls a function on each item in its own thread, in order, at most ``depth`` items behind.

    Leaving the ``with`` block waits until all items are done, after an error in the block too. Errors of the function
    are raised by ``put`` or on leaving; after one, later items are dropped.
    """

    def __init__(self, function: Callable[[Item], object], depth: int = WRITE_BEHIND) -> None:
        self._function = function
        self._waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="ctrs-write-behind", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item."""
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def _work(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, _End):
                return
            if self._error is None:
                try:
                    self._function(item)
                except BaseException as error:  # handed to the caller's thread
                    self._error = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the thread; raise its error unless the block already raises one."""
        self._waiting.put(_End())
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error
