"""The log: every line can be read, and none says what it must not."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
from datetime import UTC, datetime

import pytest

from proxy.events import Usage
from proxy.observe.logs import AccessLog, JSONFormatter, TextFormatter, setup, where
from proxy.observe.record import Record
from proxy.settings import Log

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
PROMPT = "tell me a secret"


def raised(exc: Exception) -> Exception:
    def deeper() -> None:
        raise exc

    try:
        deeper()
    except Exception as caught:
        return caught
    raise AssertionError


def log_record(message: str = "hello %s", *args: object, exc: Exception | None = None) -> logging.LogRecord:
    told = (type(exc), exc, exc.__traceback__) if exc else None
    return logging.LogRecord("proxy.x", logging.WARNING, __file__, 1, message, args, told)


@pytest.fixture
def quiet_again():
    """Give the loggers back as they were."""
    names = ["", "proxy", "aiohttp.server"]
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in names}
    yield
    for name, (level, handlers) in before.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers[:] = handlers


# Lines of the log...


def test_a_json_line():
    line = JSONFormatter().format(log_record("hello %s", "wörld\n🌍"))
    assert "\n" not in line
    told = json.loads(line)
    assert list(told) == ["time", "level", "message"]
    assert (told["level"], told["message"]) == ("warning", "hello wörld\n🌍")
    assert re.fullmatch(TIME, told["time"])


def test_a_text_line():
    assert re.fullmatch(TIME + r" warning hello world", TextFormatter().format(log_record("hello %s", "world")))


@pytest.mark.parametrize("formatter", [JSONFormatter(), TextFormatter()], ids=["json", "text"])
def test_an_exception_is_its_type_and_its_place_and_not_what_it_says(formatter):
    cause = ValueError(PROMPT)
    exc = raised(RuntimeError(PROMPT, {"messages": PROMPT}))
    exc.__cause__ = cause
    exc.add_note(PROMPT)
    line = formatter.format(log_record("request %s failed", "req_1", exc=exc))
    assert PROMPT not in line
    assert "\n" not in line
    assert "request req_1 failed" in line
    assert "RuntimeError at test_logs.py:" in line
    assert "deeper < test_logs.py:" in line  # the innermost first


def test_what_cannot_be_encoded_is_logged_all_the_same():
    line = JSONFormatter().format(log_record("a name: %s", "\udcff"))
    assert json.loads(line)["message"] == "a name: \udcff"


def test_where_is_short_however_deep():
    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        raise ValueError(PROMPT)

    with pytest.raises(ValueError, match=PROMPT) as caught:
        deep(50)
    assert where(caught.value).count("<") == 7
    assert where(None) == ""
    assert where(ValueError("never raised")) == "ValueError at "


@pytest.mark.parametrize("form", ["json", "text"])
def test_setup_sends_our_log_to_stderr(form, quiet_again, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    setup(Log(level="info", format=form))
    logging.getLogger("proxy.x").info("ours")
    logging.getLogger("proxy.x").debug("too quiet")
    logging.getLogger("other").info("theirs")
    logging.getLogger("other").warning("their warning")
    logging.getLogger("aiohttp.server").error("Error handling request: Bearer sk-secret")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "ours" in lines[0]
    assert "their warning" in lines[1]
    assert all((line[0] == "{") == (form == "json") for line in lines)


def test_setup_follows_the_level(quiet_again, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    setup(Log(level="error"))
    logging.getLogger("proxy.x").warning("unheard")
    setup(Log(level="debug"))
    logging.getLogger("proxy.x").debug("heard")
    assert stream.getvalue().count("heard") == 1


# Lines about requests...


class Written:
    """Stands for stderr."""

    def __init__(self) -> None:
        self.data = b""
        self.came = asyncio.Event()

    def __call__(self, data: bytes) -> None:
        self.data += data
        self.came.set()


@pytest.fixture
def written():
    return Written()


def settled(**known: object) -> Record:
    """Everything that could hold a client's words does."""
    told = {
        "route": "chat_completions",
        "key": "laptop",
        "label": "openai/*",
        "model": f"openai/{PROMPT}",
        "provider": "up",
        "attempts": 1,
        "streamed": True,
        "outcome": "ok",
        "first_frame_at": 100.25,
        "frames": 7,
        "usage": Usage(3, 5),
        "headers": {"x-proxy-model": PROMPT},
    }
    return Record(**{"request_id": "req_1", "began": 100.0, **told, **known})


async def test_a_json_line_about_a_request(written):
    log = AccessLog(Log(), written)
    log.settle(settled(), "POST", "chat_completions", 200, 101.5)
    log.flush()
    told = json.loads(written.data)
    then = datetime.fromisoformat(told.pop("time"))
    assert abs((datetime.now(UTC) - then).total_seconds()) < 600
    assert told == {
        "level": "info",
        "message": "request",
        "request_id": "req_1",
        "method": "POST",
        "route": "chat_completions",
        "status": 200,
        "outcome": "ok",
        "key": "laptop",
        "model": "openai/*",
        "provider": "up",
        "attempts": 1,
        "streamed": True,
        "ttfb_ms": 250.0,
        "duration_ms": 1500.0,
        "frames": 7,
        "input_tokens": 3,
        "output_tokens": 5,
        "usage_source": "upstream",
    }


async def test_a_text_line_about_a_request(written):
    log = AccessLog(Log(format="text"), written)
    log.settle(settled(), "POST", "chat_completions", 200, 101.5)
    log.flush()
    (line,) = written.data.decode().splitlines()
    assert re.match(TIME + r" info    request_id=req_1 method=POST route=chat_completions status=200 ", line)
    assert " model=openai/* provider=up " in line
    assert PROMPT not in line


async def test_what_did_not_happen_is_null_or_left_out(written):
    for form, absent in (("json", '"ttfb_ms":null'), ("text", "usage_source=none")):
        log = AccessLog(Log(format=form), written)
        log.settle(Record("req_1", 100.0, outcome="refused", error="not_found", reason="why"), "GET", "", 404, 100.1)
        log.flush()
        assert absent in written.data.decode()
    assert b'"error":"not_found","reason":"why"' in written.data
    assert b"error=not_found reason=why" in written.data
    assert b"ttfb_ms=" not in written.data
    assert b"None" not in written.data


async def test_lines_wait_for_company_and_come_by_themselves(written):
    log = AccessLog(Log(), written)
    for number in range(3):
        log.settle(settled(request_id=f"req_{number}"), "POST", "x", 200, 101.0)
        assert written.data == b""
    async with asyncio.timeout(30):
        await written.came.wait()
    lines = written.data.splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["req_0", "req_1", "req_2"]
    log.flush()
    assert len(written.data.splitlines()) == 3


async def test_only_so_many_lines_wait(written):
    log = AccessLog(Log(), written)
    for _ in range(63):
        log.settle(settled(), "POST", "x", 200, 101.0)
    assert written.data == b""
    log.settle(settled(), "POST", "x", 200, 101.0)
    assert len(written.data.splitlines()) == 64


async def test_a_line_that_waited_tells_its_own_time(written, monkeypatch):
    log = AccessLog(Log(), written)
    for moment in (1_700_000_000.25, 1_700_000_000.5, 1_700_000_001.0):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        log.settle(settled(), "POST", "x", 200, 101.0)
    monkeypatch.setattr("time.time", lambda: 1_700_000_099.0)
    log.flush()
    assert [json.loads(line)["time"] for line in written.data.splitlines()] == [
        "2023-11-14T22:13:20.250Z",
        "2023-11-14T22:13:20.500Z",
        "2023-11-14T22:13:21.000Z",
    ]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "odd", [{"usage": Usage(10**30, 0)}, {"reason": "\udcff", "error": "x"}], ids=["count", "word"]
)
async def test_an_odd_line_takes_none_of_its_company_along(written, form, odd):
    log = AccessLog(Log(format=form), written)
    for number, known in enumerate(({}, odd, {})):
        log.settle(settled(request_id=f"req_{number}", **known), "POST", "x", 200, 101.0)
    log.flush()
    assert [f"req_{number}".encode() in line for number, line in enumerate(written.data.splitlines())] == [True] * 3


async def test_lines_about_requests_follow_the_level_and_the_form(written):
    log = AccessLog(Log(level="warning"), written)
    log.settle(settled(), "POST", "x", 200, 101.0)
    log.flush()
    assert written.data == b""
    log.follow(Log(level="debug", format="text"))
    log.settle(settled(), "POST", "x", 200, 101.0)
    log.flush()
    assert b"request_id=req_1" in written.data


async def test_a_log_that_nobody_reads_stops_nothing(monkeypatch):
    class Closed(io.RawIOBase):
        def write(self, data):
            raise BrokenPipeError

    class Stderr:
        buffer = Closed()

    monkeypatch.setattr(sys, "stderr", Stderr())
    log = AccessLog(Log())
    log.settle(settled(), "POST", "x", 200, 101.0)
    log.flush()
