"""The course of a measurement: the processes that it took, and the time of each method over all of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass
class History:
    """When a measurement was started and gone on with, and for how long; what was measured and then lost does not count.

    starts: of each process: when, on which host, and after how many images of each method. timings, seconds: of each method,
    and in all, in s.
    """

    starts: list[dict[str, Any]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    _method: str | None = None
    _since: float = field(default_factory=time.perf_counter)

    def start(self, images: Mapping[str, int]) -> None:
        """Note this process, which goes on after so many images."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.starts.append({"started": now, "host": socket.gethostname(), "images": dict(images)})

    def here(self) -> None:
        """Count on by this machine's clock, if it was another's that began."""
        self._since = time.perf_counter()

    def enter(self, method: str | None) -> None:
        """Say what the time from now on is spent on."""
        self._count()
        self._method = method

    def state(self) -> dict[str, Any]:
        """Everything up to now, for `restore`."""
        self._count()
        return {"starts": self.starts, "timings": self.timings, "seconds": self.seconds}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`."""
        self.starts, self.timings = list(state["starts"]), dict(state["timings"])
        self.seconds += state["seconds"]

    def _count(self) -> None:
        elapsed, self._since = time.perf_counter() - self._since, time.perf_counter()
        self.seconds += elapsed
        if self._method is not None:
            self.timings[self._method] = self.timings.get(self._method, 0.0) + elapsed
