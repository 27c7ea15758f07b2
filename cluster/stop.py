"""The driver's signals: SIGTERM, SIGUSR1 or Ctrl-C ask the run to save and stop; a second Ctrl-C ends it at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

NOTICE = b"stopping: the step in hand is finished and saved; Ctrl-C now ends it at once\n"
NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopSignals:
    """While inside, the signals set `asked` and call `then`; only the main thread can catch them."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.asked = False
        self.then = then
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self.before = self.install()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Give the signals back, unless one has come: a second one must not end this process before it has told."""
        if self.asked:
            return
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def install(self) -> dict[int, Any]:
        """Take the signals, again where another library took them; returns the handlers until now."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._receive) for number in NUMBERS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.asked = True  # first, for the next signal may come while this one is handled
        self.then()
        os.write(2, NOTICE)  # a handler may not print: it may have interrupted a print
