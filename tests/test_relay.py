"""The pump without sockets: what is told to whom and when, and which clock speaks first."""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from proxy.dialects.openai_chat import errors as openai_errors
from proxy.dialects.openai_chat import whole as chat_whole
from proxy.dialects.openai_chat.tap import ChatTap
from proxy.errors import GatewayError, InternalError, Overloaded, UpstreamError
from proxy.events import Usage
from proxy.pipes import Passthrough
from proxy.relay import ClientStalled, Ready, Relay
from proxy.settings import Timeouts
from proxy.sse import encode
from proxy.upstream import Head
from proxy.upstream.connection import Stale

from .functional.upstream import DONE, chunk, compact, completion, sse, usage

EVENT_STREAM = Head(200, {"content-type": "text/event-stream"})
JSON = Head(200, {"content-type": "application/json"})
A, B, FINISH = sse(chunk("a")), sse(chunk("b")), sse(chunk(finish="stop"))
KEPT = b": keep-alive\n\n"
CUT = UpstreamError("cut")


class Wheel:
    """Ticks when the test says so."""

    def __init__(self) -> None:
        self.members: set[Any] = set()
        self.add, self.discard = self.members.add, self.members.discard


class Call:
    def __init__(self) -> None:
        self.did: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.did.append(name)


class Outlet:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.ends: list[str] = []
        self.full = self.deaf = False
        self.tell: Any = None

    def write(self, data: bytes, *, last: bool = False) -> bool:
        self.written.append(data)
        if last:
            self.finish()
        return self.full

    def finish(self) -> None:
        if not self.ends:
            self.ends.append("finished")

    def cut(self) -> None:
        self.ends.append("cut")

    def stalled(self, now: float, patience: float) -> bool:
        return self.deaf

    def on_writable(self, tell: Any) -> None:
        self.tell = tell


class Bench:
    """A relay between a call and an outlet that remember what was done to them."""

    def __init__(self, *, streamed: bool = True, keepalive: float = 0, **clocks: float) -> None:
        self.wheel, self.call, self.outlet = Wheel(), Call(), Outlet()
        self.relay = Relay(Timeouts(**clocks), self.wheel, max_whole=10_000, began=monotonic(), request_id="req_1")
        if streamed:
            self.relay.stream(
                Passthrough(ChatTap(str, include_usage=False), openai_errors.frame, 10_000),
                lambda body: chat_whole.as_stream(chat_whole.check(body, str), include_usage=False),
                keepalive=keepalive,
                keepalive_frame=KEPT,
            )
        #: What its owner was told, and whether all was over by then.
        self.told: list[Any] = []
        self.relay.on_ready = lambda: self.told.append((self.relay.told, self.relay.over))
        self.relay.sent(self.call)
        self.now = monotonic()

    def came(self, *said: Head | bytes) -> None:
        for one in said:
            if isinstance(one, Head):
                self.relay.head_came(one)
            else:
                self.relay.data_came(one)

    def opened(self) -> bytes:
        """What the attempt does once the relay is ready; returns what goes out with the head."""
        first = self.relay.take_held()
        self.relay.flow(self.outlet)
        return first

    def after(self, seconds: float) -> None:
        for member in tuple(self.wheel.members):
            member.tick(self.now + seconds)

    @property
    def fault(self) -> Any:
        """What went wrong."""
        return self.relay.told if isinstance(self.relay.told, Exception) else self.relay.error


# What the handler is told


async def test_a_stream_is_ready_with_its_first_frame():
    bench = Bench()
    bench.came(EVENT_STREAM, b": hello\n\n", A[:20])
    assert bench.told == []
    bench.came(A[20:])
    assert bench.relay.told is Ready.STREAM
    assert not bench.relay.over
    assert bench.opened() == A


async def test_what_came_before_the_outlet_was_open_is_written_first():
    bench = Bench()
    bench.came(EVENT_STREAM, A)
    assert bench.relay.take_held() == A
    bench.came(B)  # while the head is written
    bench.relay.flow(bench.outlet)
    bench.came(FINISH)
    assert bench.outlet.written == [B, FINISH]


async def test_the_end_mark_leaves_with_the_last_frame_and_ends_everything():
    bench = Bench()
    bench.came(EVENT_STREAM, A)
    bench.opened()
    bench.came(FINISH + DONE)
    assert bench.outlet.written == [FINISH + DONE]
    assert bench.outlet.ends == ["finished"]
    assert bench.relay.over
    assert bench.call.did == ["leave"]  # the rest of HTTP is for the pool
    assert not bench.wheel.members
    bench.relay.ended(None)
    assert (bench.fault, bench.outlet.written) == (None, [FINISH + DONE])


async def test_a_stream_may_be_over_before_its_outlet_is_open():
    bench = Bench()
    bench.came(EVENT_STREAM, A + FINISH + DONE)
    assert bench.relay.over
    assert bench.opened() == A + FINISH + DONE
    assert bench.outlet.ends == ["finished"]


async def test_a_whole_answer_is_ready_at_its_end():
    bench = Bench(streamed=False)
    bench.came(JSON, b"\n\n", b'{"choices":', b"[]}")
    assert bench.told == []
    bench.relay.ended(None)
    assert bench.relay.told is Ready.WHOLE
    assert bench.relay.body == b'{"choices":[]}'
    assert bench.relay.over  # a handler that outlives its client waits for this
    assert not bench.wheel.members


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize("before", [b"", b"\n\n", b"\xef\xbb\xbf"], ids=["at-once", "blank-lines", "bom"])
async def test_a_whole_answer_may_come_in_one_read(status, before):
    bench = Bench(streamed=False)
    bench.relay.answered(Head(status, {}), before + b'{"choices":[]}')
    assert bench.relay.told is Ready.WHOLE
    assert (bench.relay.head, bench.relay.body) == (Head(status, {}), b'{"choices":[]}')
    assert bench.relay.over
    assert not bench.wheel.members


async def test_a_whole_answer_may_come_before_the_clocks_run():
    """The provider was faster than whoever sent the request."""
    bench = Bench(streamed=False)
    bench.wheel.members.clear()
    bench.relay.answered(JSON, b"{}")
    bench.relay.sent(bench.call)
    assert not bench.wheel.members


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_without_a_body_may_come_in_one_read(streamed):
    bench = Bench(streamed=streamed)
    bench.relay.answered(Head(500, {}), b"")
    assert bench.relay.told is Ready.WHOLE
    assert (bench.relay.head.status, bench.relay.body) == (500, b"")
    assert bench.relay.over


@pytest.mark.parametrize(
    ("head", "body", "ready", "told"),
    [
        pytest.param(EVENT_STREAM, A + FINISH + DONE, Ready.STREAM, A + FINISH + DONE, id="a-stream"),
        pytest.param(EVENT_STREAM, A + FINISH, Ready.STREAM, A + FINISH + DONE, id="without-its-end-mark"),
        pytest.param(JSON, compact(completion("Hi")).encode(), Ready.STREAM, None, id="json-for-a-stream"),
        pytest.param(Head(400, {}), b'{"error":{}}', Ready.WHOLE, b"", id="a-refusal"),
    ],
)
async def test_a_stream_may_come_in_one_read(head, body, ready, told):
    bench = Bench()
    bench.relay.answered(head, body)
    assert bench.relay.told is ready
    assert bench.fault is None
    assert bench.relay.over
    first = bench.opened()
    assert first == told if told is not None else first.endswith(DONE)
    assert bench.relay.body == (b"" if ready is Ready.STREAM and head is EVENT_STREAM else body)


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_comes_in_one_read_has_its_bound_too(streamed):
    bench = Bench(streamed=streamed)
    bench.relay.answered(JSON, b'{"x":"' + b"x" * 10_000 + b'"}')
    assert "larger than 10000 bytes" in str(bench.relay.told)
    assert bench.relay.over


async def test_an_answer_in_one_read_that_comes_too_late_is_not_told():
    bench = Bench(streamed=False)
    bench.relay.fail(Overloaded("going"))
    bench.relay.answered(JSON, b"{}")
    assert "going" in str(bench.relay.told)


@pytest.mark.parametrize("head", [JSON, EVENT_STREAM, Head(200, {})], ids=["json", "event-stream", "no-type"])
async def test_json_for_a_stream_is_said_as_one(head):
    bench = Bench()
    bench.came(head, compact(completion("Hi", usage=usage())).encode())
    bench.relay.ended(None)
    assert bench.relay.told is Ready.STREAM
    told = bench.opened()
    assert b'"content":"Hi"' in told
    assert told.endswith(DONE)
    assert bench.relay.over
    assert bench.relay.frames == told.count(b"data: ")


@pytest.mark.parametrize("status", [301, 400, 429, 500])
async def test_another_status_is_collected(status):
    bench = Bench()
    bench.came(Head(status, {"content-type": "text/event-stream"}), b"data: no\n\n")
    bench.relay.ended(None)
    assert bench.relay.told is Ready.WHOLE
    assert bench.relay.body == b"data: no\n\n"


# How it ends badly


ENDS: list[Any] = [
    pytest.param(lambda bench: bench.relay.ended(CUT), "cut", id="broken"),
    pytest.param(lambda bench: bench.relay.ended(None), "before the answer did", id="ended"),
    pytest.param(lambda bench: bench.relay.fail(Overloaded("going")), "going", id="shutdown"),
    pytest.param(lambda bench: bench.came(sse({"error": {"message": "boom"}})), "boom", id="told"),
    pytest.param(lambda bench: bench.came(b"data: " + b"x" * 20_000), "max_frame_bytes", id="overlong"),
    pytest.param(lambda bench: bench.after(1000), "timeouts.", id="a-clock"),
]


@pytest.mark.parametrize(("end", "says"), ENDS)
async def test_a_fault_before_anything_was_said_is_raised(end, says):
    bench = Bench()
    bench.came(EVENT_STREAM, b": hello\n\n")
    end(bench)
    assert says in str(bench.relay.told)
    assert bench.relay.over
    assert not bench.wheel.members


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("end", "says"), [case for case in ENDS if case.id in {"broken", "shutdown", "a-clock"}])
async def test_a_fault_before_the_head_is_raised(streamed, end, says):
    bench = Bench(streamed=streamed)
    end(bench)
    assert says in str(bench.relay.told)
    assert bench.relay.over


@pytest.mark.parametrize(("end", "says"), ENDS)
@pytest.mark.parametrize("opened", [True, False], ids=["opened", "not-yet"])
async def test_a_later_fault_is_a_frame(end, says, opened):
    bench = Bench()
    bench.came(EVENT_STREAM, A)
    told = bench.opened() if opened else b""
    bench.came(B)
    end(bench)
    told = (told or bench.opened()) + b"".join(bench.outlet.written)
    assert told.startswith(A + B + b'data: {"error":{')
    assert says in told.decode()
    assert DONE not in told
    assert bench.outlet.ends == ["finished"]
    assert isinstance(bench.relay.error, GatewayError)
    assert bench.relay.over


async def test_only_the_first_fault_counts():
    bench = Bench()
    bench.came(EVENT_STREAM, A)
    bench.opened()
    bench.relay.fail(Overloaded("first"))
    bench.relay.fail(Overloaded("second"))
    bench.relay.ended(CUT)
    bench.after(1000)
    assert len(bench.outlet.written) == 1
    assert "first" in str(bench.relay.error)
    assert bench.call.did == ["abort"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_stale_connection_is_told_before_anything_came(streamed):
    bench = Bench(streamed=streamed)
    bench.relay.ended(Stale())
    assert isinstance(bench.relay.told, Stale)
    assert bench.relay.error is None
    assert bench.relay.over
    assert not bench.wheel.members


@pytest.mark.parametrize("where", ["data", "end", "clock"])
async def test_a_mistake_of_ours_is_not_left_to_the_loop(monkeypatch, caplog, where):
    bench = Bench()

    def fails(*_: object) -> bytes:
        raise RuntimeError("wrong")

    bench.came(EVENT_STREAM, A)
    bench.opened()
    pipe = bench.relay.pipe
    match where:
        case "data":
            monkeypatch.setattr(pipe, "feed", fails)
            bench.came(B)
        case "end":
            monkeypatch.setattr(pipe, "end", fails)
            bench.relay.ended(None)
        case "clock":
            monkeypatch.setattr(bench.relay, "_look_at_clocks", fails)
            bench.after(1)
    assert isinstance(bench.relay.error, InternalError)
    assert "req_1" in caplog.text
    assert b"internal error" in bench.outlet.written[-1]
    assert bench.outlet.ends == ["finished"]


# The client's side


async def test_upstream_is_stopped_while_the_client_is_full():
    bench = Bench(idle=1, heartbeat=1, first_byte=1, client=100)
    bench.came(EVENT_STREAM, A)
    bench.opened()
    bench.outlet.full = True
    bench.came(A)
    bench.came(B)  # was on its way
    assert bench.call.did == ["pause"]
    bench.after(50)  # no clock of upstream's runs
    assert not bench.relay.over
    bench.relay._last_byte = bench.relay._last_progress = bench.now - 50  # as long as that
    bench.outlet.full = False
    bench.outlet.tell()
    assert bench.call.did == ["pause", "resume"]
    assert bench.outlet.written == [A, B]
    bench.after(0.9)
    assert not bench.relay.over  # they begin anew
    bench.after(60)
    assert "timeouts.idle" in str(bench.relay.error)


async def test_a_client_that_takes_nothing_is_cut():
    bench = Bench()
    bench.came(EVENT_STREAM, A)
    bench.outlet.full = True
    bench.opened()
    bench.after(1)
    assert not bench.relay.over
    bench.outlet.deaf = True
    bench.after(2)
    assert isinstance(bench.relay.error, ClientStalled)
    assert bench.outlet.ends == ["cut", "finished"][:1]
    assert bench.call.did == ["pause", "abort"]


async def test_no_more_than_a_little_waits_for_the_outlet():
    bench = Bench()
    bench.relay.pipe = Passthrough(ChatTap(str), openai_errors.frame, 10**7)
    bench.came(EVENT_STREAM, A)
    big = sse(chunk("x" * 200_000))
    bench.came(big)
    assert bench.call.did == []
    bench.came(big)
    assert bench.call.did == ["pause"]
    assert bench.opened() == A + big + big
    assert bench.call.did == ["pause", "resume"]


async def test_a_muted_relay_reads_on_and_says_nothing():
    bench = Bench()
    bench.came(EVENT_STREAM, A)
    bench.opened()
    bench.outlet.full = True
    bench.came(A)
    bench.relay.mute()
    assert bench.call.did == ["pause", "resume"]
    bench.came(B, sse(chunk(finish="stop", usage=usage(5, 7))) + DONE)
    assert bench.relay.over
    assert bench.relay.pipe.usage == Usage(5, 7)
    assert bench.outlet.written == [A]
    assert bench.outlet.ends == []


async def test_the_owner_of_a_stream_is_told_of_its_end_once():
    bench, ends = Bench(), []
    bench.came(EVENT_STREAM, A)
    bench.relay.on_over = lambda: ends.append(bench.relay.over)
    bench.opened()
    bench.came(B)
    assert ends == []
    bench.relay.fail(Overloaded("going"))
    bench.came(B)
    bench.relay.ended(CUT)
    assert (ends, bench.told) == ([True], [(Ready.STREAM, False)])


async def test_who_has_closed_is_told_nothing():
    bench, ends = Bench(), []
    bench.relay.on_over = lambda: ends.append("over")
    bench.relay.close()
    bench.came(EVENT_STREAM, A)
    bench.relay.fail(Overloaded("going"))
    assert (ends, bench.told) == ([], [])


async def test_closing_lets_everything_go():
    bench = Bench()
    bench.came(EVENT_STREAM, A)
    bench.opened()
    bench.relay.close()
    assert bench.call.did == ["abort"]
    assert bench.outlet.tell is None
    assert not bench.wheel.members


# Clocks: one second after the relay has begun is `after(1)`


CLOCKS = [
    # streamed, what came, which clocks are set to 1, which one speaks after 1.5 s (None: none)
    pytest.param(True, [], {"first_byte": 1}, "first_byte", id="nothing"),
    pytest.param(True, [EVENT_STREAM], {"first_byte": 1}, "first_byte", id="head"),
    pytest.param(True, [], {"idle": 1, "heartbeat": 1, "total": 1, "after_finish": 1}, None, id="not-begun"),
    pytest.param(True, [EVENT_STREAM, b": x\n\n"], {"first_byte": 1}, None, id="a-comment-is-a-byte"),
    pytest.param(True, [EVENT_STREAM, b": x\n\n"], {"idle": 1}, "idle", id="comment-then-silence"),
    pytest.param(True, [EVENT_STREAM, A], {"idle": 1}, "idle", id="frame-then-silence"),
    pytest.param(True, [EVENT_STREAM, A], {"first_byte": 1, "total": 1, "after_finish": 1}, None, id="frame"),
    pytest.param(True, [EVENT_STREAM, A], {"heartbeat": 1}, "heartbeat", id="frame-then-no-progress"),
    pytest.param(True, [EVENT_STREAM, A], {"stream_total": 1}, "stream_total", id="lively"),
    pytest.param(True, [EVENT_STREAM, A], {"stream_total": 0}, None, id="stream-total-0-is-none"),
    pytest.param(True, [], {"stream_total": 1}, "stream_total", id="total-of-all-phases"),
    pytest.param(True, [Head(429, {}), b"{"], {"idle": 1}, "idle", id="half-a-refusal"),
    pytest.param(True, [JSON, b"{"], {"idle": 1}, "idle", id="half-of-json"),
    pytest.param(False, [], {"total": 1}, "total", id="whole-nothing"),
    pytest.param(False, [JSON, b"{"], {"total": 1}, "total", id="whole-half"),
    pytest.param(False, [JSON, b"{"], {"idle": 1}, "idle", id="whole-silence"),
    pytest.param(False, [JSON, b"\n"], {"heartbeat": 1}, "heartbeat", id="whole-blank-lines"),
    pytest.param(False, [], {"first_byte": 1, "idle": 1, "heartbeat": 1, "stream_total": 1}, None, id="whole-waits"),
    pytest.param(False, [JSON], {"first_byte": 1, "idle": 1, "heartbeat": 1}, None, id="whole-head"),
]  # fmt: skip


@pytest.mark.parametrize(("streamed", "came", "clocks", "speaks"), CLOCKS)
async def test_which_clock_speaks(streamed, came, clocks, speaks):
    bench = Bench(streamed=streamed, **clocks)
    bench.came(*came)
    bench.after(0.5)
    assert bench.fault is None
    bench.after(1.5)
    if speaks is None:
        assert bench.fault is None
        bench.relay.close()
    else:
        assert f"(timeouts.{speaks})" in str(bench.fault)
        assert "1 s" in str(bench.fault)
        assert bench.call.did == ["abort"]


@pytest.mark.parametrize("usage_came", [True, False])
async def test_after_finish_supplies_the_end_mark(usage_came):
    bench = Bench(after_finish=1, idle=0.1)
    bench.came(EVENT_STREAM, A + sse(chunk(finish="stop", usage=usage() if usage_came else None)))
    bench.opened()
    bench.after(0.5)  # `idle` does not speak any more
    assert not bench.relay.over
    bench.after(1.5)
    assert bench.outlet.written == [encode(b"[DONE]")]
    assert bench.fault is None
    assert bench.call.did == ["abort"]


async def test_part_of_a_frame_is_progress_a_comment_is_not():
    bench = Bench(heartbeat=1, idle=100)
    bench.came(EVENT_STREAM, A, B[:20])
    bench.relay._last_byte = monotonic() + 5  # as if its last byte had come then
    bench.after(5.5)
    assert bench.fault is None
    bench.after(7)
    assert "timeouts.heartbeat" in str(bench.fault)


async def test_signs_of_life_are_counted_from_the_last_word():
    bench = Bench(keepalive=1)
    bench.came(EVENT_STREAM, A)
    bench.opened()
    for seconds, told in ((0.9, 0), (1.1, 1), (1.9, 1), (2.2, 2)):
        bench.after(seconds)
        assert bench.outlet.written == [KEPT] * told


@pytest.mark.parametrize(
    ("came", "ready"),
    [
        pytest.param([], None, id="no-head"),
        pytest.param([EVENT_STREAM], Ready.QUIET, id="head"),
        pytest.param([Head(200, {"content-type": "text/plain"})], Ready.QUIET, id="head-of-another-type"),
        pytest.param([EVENT_STREAM, b": x\n\n"], Ready.QUIET, id="comment"),
        pytest.param([EVENT_STREAM, A[:30]], Ready.QUIET, id="half-a-frame"),
        pytest.param([JSON], None, id="json"),
        pytest.param([EVENT_STREAM, b"{"], None, id="json-in-disguise"),
        pytest.param([Head(503, {"content-type": "text/event-stream"})], None, id="an-error"),
    ],
)
async def test_when_a_response_may_begin_without_a_frame(came, ready):
    bench = Bench(keepalive=1)
    bench.came(*came)
    bench.after(0.9)
    assert bench.told == []
    bench.after(1.1)
    assert bench.relay.told is ready
    bench.relay.close()


async def test_gaps_are_counted_between_reads_that_completed_frames():
    bench = Bench()
    bench.came(EVENT_STREAM, A, B[:9], B[9:] + A, FINISH)
    bench.opened()
    assert sum(bench.relay.gaps.counts) == 2
    assert bench.relay.frames == 4
    bench.relay.close()
