"""Log lines, as JSON or text, on stderr.

The access log is written in batches a moment later, off the path of the request; everything else
goes through `logging` at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.observe.record import Record
    from proxy.settings import Log

_DELAY = 0.1  # seconds that an access line may wait for company
_BATCH = 64  # lines; many more would take memory that is given back each time, and asked for anew


class JSONFormatter(logging.Formatter):
    """One object a line: time, level, message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _iso(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = where(record.exc_info[1])
        return _object(line).decode()


class TextFormatter(logging.Formatter):
    """For people: time, level, message."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_iso(record.created)} {record.levelname.lower():7} {record.getMessage()}"
        if record.exc_info and record.exc_info[0]:
            line += f" [{where(record.exc_info[1])}]"
        return line


def setup(log: Log) -> None:
    """Send logging to stderr in the configured form; libraries are heard from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log.format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("proxy").setLevel(log.level.upper())
    # Its parser errors carry the offending bytes, which may be a key.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def where(exc: BaseException | None) -> str:
    """Say an exception by its type and the lines it came through: its message may hold a prompt."""
    if exc is None:
        return ""
    steps = []
    trace = exc.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        steps.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{type(exc).__name__} at {' < '.join(reversed(steps[-8:]))}"


class AccessLog:
    """One line a request, at its end."""

    def __init__(self, log: Log, write: Callable[[bytes], object] | None = None) -> None:
        """``write`` takes whole lines; left out: stderr."""
        self._write = write or _to_stderr
        self._settled: list[tuple[Record, str, str, int, float, float]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._clock = _Clock()
        self.follow(log)

    def follow(self, log: Log) -> None:
        """Take the level and the form from ``log`` from now on."""
        self._enabled = log.level in ("debug", "info")
        self._json = log.format == "json"

    def settle(self, record: Record, method: str, path: str, status: int, now: float) -> None:
        """Note a request that is over."""
        if not self._enabled:
            return
        self._settled.append((record, method, path, status, now, time.time()))
        if len(self._settled) >= _BATCH:
            self.flush()
        elif self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(_DELAY, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._settled:
            # Many at a time: what runs for the first of them is at hand for the others.
            settled, self._settled = self._settled, []
            render = _object if self._json else _text
            self._write(b"\n".join([render(self._line(*one)) for one in settled]) + b"\n")

    def _line(self, record: Record, method: str, path: str, status: int, now: float, wall: float) -> dict[str, Any]:
        read, written, source = record.tokens
        line = {
            "time": self._clock(wall),
            "level": "info",
            "message": "request",
            "request_id": record.request_id,
            "method": method,
            "route": path,
            "status": status,
            "outcome": record.outcome,
            "key": record.key,
            "model": record.label,
            "provider": record.provider,
            "attempts": record.attempts,
            "streamed": record.streamed,
            "ttfb_ms": _ms(record.first_frame_at - record.began) if record.first_frame_at else None,
            "duration_ms": _ms(now - record.began),
            "frames": record.frames,
            "input_tokens": read,
            "output_tokens": written,
            "usage_source": source,
        }
        if record.error:
            line["error"] = record.error
            if record.reason:
                line["reason"] = record.reason
        return line


def _to_stderr(data: bytes) -> None:
    try:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
    except (OSError, ValueError):
        return  # a log that nobody reads any more must not stop the gateway


def _object(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line)
    except TypeError:  # half of a surrogate pair, which headers and file names may hold; a count beyond 64 bits
        return json.dumps(line).encode()


def _text(line: dict[str, Any]) -> bytes:
    rest = " ".join(
        f"{k}={v}" for k, v in line.items() if k not in ("time", "level", "message") and v not in ("", None)
    )
    return f"{line['time']} info    {rest}".encode(errors="backslashreplace")


def _ms(seconds: float) -> float:
    return int(seconds * 10_000) / 10


class _Clock:
    """Writes the time; the part before the milliseconds is the same for a thousand of them."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def __call__(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            self._second = second
            self._prefix = _iso(second)[:-4]
        return f"{self._prefix}{int((moment - second) * 1000):03d}Z"


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
