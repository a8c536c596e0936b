"""Chat completions on their way to a client of the same dialect: what passes, what is told, and how it ends."""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

import orjson
import pytest

from proxy.dialects.openai_chat import errors
from proxy.dialects.openai_chat.tap import END_MARK, ChatTap
from proxy.errors import Kind, TimedOut, UpstreamError
from proxy.events import Usage
from proxy.pipes import Passthrough
from proxy.scrub import scrubber
from tests.cuts import drip, telling_cuts
from tests.dialects.openai_chat import chunk, dumps, nothing, say, sse, usage
from tests.whatwg import interpret
from tests.wire import CHAT, wire

RESET = UpstreamError("the provider's connection broke")


class Outcome(NamedTuple):
    """What the client got, and how the pipe thinks that it ended."""

    out: bytes
    done: bool
    finished: bool
    error: str
    usage: object
    frames: int


def passthrough(*, asked: bool = False, choices: int = 1, max_frame: int = 2**20, scrub=nothing) -> Passthrough:
    return Passthrough(ChatTap(scrub, include_usage=asked, choices=choices), errors.frame, max_frame)


def outcome(chunks: list[bytes], torn: UpstreamError | None = None, **options: object) -> Outcome:
    """Feed a stream as the relay does: up to the end mark or an error, else up to the end of the body."""
    pipe = passthrough(**options)
    out = b""
    for each in chunks:
        out += pipe.feed(each)
        if pipe.done or pipe.error:
            break
    else:
        out += pipe.end(torn)
    assert pipe.done != bool(pipe.error)
    frames = pipe.frames if pipe.done else -1  # how many stood behind an error is nobody's concern
    return Outcome(out, pipe.done, pipe.finished, pipe.error.message if pipe.error else "", pipe.usage, frames)


def data(stream: bytes) -> list[bytes]:
    return [event.data for event in interpret(stream)]


@pytest.mark.parametrize("asked", [False, True], ids=["usage-not-asked", "usage-asked"])
@pytest.mark.parametrize("name", CHAT)
def test_an_outcome_does_not_depend_on_cuts(name, asked):
    whole = outcome([wire(name)], asked=asked)
    for chunks in telling_cuts(wire(name)):
        assert outcome(chunks, asked=asked) == whole, chunks[0]


# What passes...


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "cr",
        "mixed-line-ends",
        "usage-on-finish-chunk",
        "usage-after-finish-with-a-choice",
        "no-space-after-the-colon",
        "event-message-on-every-frame",
        "data-in-several-lines",
        "unicode-line-ends-in-content",
        "error-null-on-every-chunk",
        "error-empty-on-every-chunk",
        "error-as-a-word",
        "no-finish-reason",
        "numbers-as-tokens",
        "role-on-every-chunk",
        "finish-reason-empty-on-every-chunk",
        "finish-reason-absent",
        "finish-reason-repeated",
        "tool-call-in-fragments",
        "tool-calls-whole-in-one-chunk",
        "tool-call-end-marker-of-nulls",
        "tool-call-cut-by-the-limit",
        "reasoning-in-two-homes",
        "reasoning-as-content-parts",
        "refusal",
    ],
)
def test_a_good_stream_passes_byte_for_byte(name):
    told = outcome([wire(name)])
    assert (told.out, told.done, told.error) == (wire(name), True, "")
    assert told.frames == len(data(wire(name)))


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("bom", "no-space-after-the-colon"),
        ("comments", "no-space-after-the-colon"),
        ("relics-of-comments", "no-space-after-the-colon"),
        ("ids-and-retries", "no-space-after-the-colon"),
        ("empty-data-between", "no-space-after-the-colon"),
        ("after-the-end-mark", "no-space-after-the-colon"),
    ],
)
def test_what_harms_clients_does_not_reach_them(name, like):
    assert outcome([wire(name)]).out == wire(like).replace(b"data:", b"data: ")


def test_unknown_fields_pass():
    stream = sse(say("Hi", future={"deep": [1, {"x": 10**30}]}), chunk(finish="stop", service_tier="x"), b"[DONE]")
    assert outcome([stream]).out == stream


def test_a_frame_leaves_before_another_byte_is_read():
    pipe, stream = passthrough(), wire("plain")
    ends = [event.due for event in interpret(stream)]
    sent = 0
    for position, byte in enumerate(drip(stream), 1):
        sent += len(pipe.feed(byte))
        assert sent == max((end for end in ends if end <= position), default=0)


# Usage...


@pytest.mark.parametrize(
    ("name", "taken_out"),
    [
        pytest.param("usage-alone-after-finish", [3], id="the-usage-chunk"),
        pytest.param("usage-twice", [3], id="the-usage-chunk-but-not-the-finish-chunk-with-usage"),
        pytest.param("usage-with-zeros-last", [3, 4], id="zeros-and-the-native-tail"),
        pytest.param("usage-real-then-zeros", [3, 4], id="both-usage-chunks"),
        pytest.param("empty-choices-first", [4], id="azures-first-chunk-stays"),
        pytest.param("spaces-in-json", [3], id="json-with-spaces"),
        pytest.param("crlf", [4], id="crlf"),
        pytest.param("two-choices", [7], id="two-choices"),
        pytest.param("usage-on-finish-chunk", [], id="nothing-of-the-finish-chunk"),
        pytest.param("usage-after-finish-with-a-choice", [], id="nothing-of-a-chunk-with-a-choice"),
    ],
)
def test_a_client_that_did_not_ask_gets_no_usage_chunk(name, taken_out):
    told = outcome([wire(name)])
    assert data(told.out) == [each for i, each in enumerate(data(wire(name))) if i not in taken_out]
    assert told.usage is not None


REAL = usage(57, 28)
DEEPSEEK = usage(
    3, 1, prompt_cache_hit_tokens=2, prompt_cache_miss_tokens=1, prompt_tokens_details={"cached_tokens": 2}
)


@pytest.mark.parametrize(
    ("name", "taken_out", "added"),
    [
        pytest.param("usage-alone-after-finish", [], None, id="upstreams-own-passes"),
        pytest.param("usage-twice", [], None, id="one-of-two-places"),
        pytest.param("empty-choices-first", [], None, id="azures-first-chunk-is-none"),
        pytest.param("usage-real-then-zeros", [4], None, id="zeros-after-it-do-not"),
        pytest.param("usage-with-zeros-last", [3, 4], {**REAL, "neurons": 10.47}, id="native-tail-becomes-one"),
        pytest.param(
            "usage-on-finish-chunk",
            [],
            DEEPSEEK,
            id="from-the-finish-chunk",
        ),
        pytest.param("usage-after-finish-with-a-choice", [], usage(3, 1, cost=0.0001), id="from-a-chunk-with-a-choice"),
        pytest.param("usage-on-every-chunk-and-no-end-mark", [], usage(3, 2), id="the-last-of-many"),
        pytest.param("plain", [], None, id="none-where-upstream-has-none"),
    ],
)  # fmt: skip
def test_a_client_that_asked_gets_one_usage_chunk(name, taken_out, added):
    told = outcome([wire(name)], asked=True)
    assert told.done
    passed = [each for i, each in enumerate(data(wire(name))) if i not in taken_out and each != b"[DONE]"]
    out = data(told.out)
    assert out[: len(passed)] == passed
    assert out[-1] == b"[DONE]"
    extra = out[len(passed) : -1]
    assert len(extra) == (added is not None)
    if added is not None:
        said = orjson.loads(extra[0])
        assert (said["choices"], said["usage"], said["object"]) == ([], added, "chat.completion.chunk")


def test_an_added_usage_chunk_belongs_to_the_same_answer():
    told = outcome([wire("usage-on-finish-chunk")], asked=True)
    first, *_, extra, _ = map(orjson.loads, data(told.out.replace(b"[DONE]", b"{}")))
    head = itemgetter("id", "model", "created")
    assert head(extra) == head(first)


@pytest.mark.parametrize("asked", [False, True])
def test_usage_is_known_whatever_the_client_asked(asked):
    assert outcome([wire("usage-alone-after-finish")], asked=asked).usage == Usage(3, 1)
    assert outcome([wire("usage-on-finish-chunk")], asked=asked).usage == Usage(3, 1, cached=2)
    assert outcome([wire("usage-with-zeros-last")], asked=asked).usage == Usage(57, 28)
    assert outcome([wire("usage-real-then-zeros")], asked=asked).usage == Usage(57, 28)
    assert outcome([wire("plain")], asked=asked).usage is None


def test_usage_of_zeros_only_is_one_chunk_too():
    stream = sse(say("Hi"), chunk(finish="stop"), {**chunk(usage=usage(0, 0)), "choices": []}, b"[DONE]")
    out = data(outcome([stream], asked=True).out)
    assert [orjson.loads(each)["usage"] for each in out[2:-1]] == [usage(0, 0)]


# Errors in the stream...


SERVER_ERROR = "The server had an error while processing your request"


@pytest.mark.parametrize(
    ("name", "status", "kind", "message"),
    [
        pytest.param("error-at-the-top", 502, Kind.UPSTREAM_ERROR, SERVER_ERROR, id="openai"),
        pytest.param("error-with-its-event", 400, Kind.INVALID_REQUEST, "Failed to call a function", id="groq"),
        pytest.param("error-event-that-is-not-json", 502, Kind.UPSTREAM_ERROR, "upstream went away", id="plain-text"),
        pytest.param("error-flat", 502, Kind.UPSTREAM_ERROR, "out of memory", id="old-vllm"),
        pytest.param("error-with-a-number-then-the-end-mark", 400, Kind.INVALID_REQUEST, "max_tokens is", id="vllm"),
        pytest.param("error-with-a-finish-reason", 502, Kind.UPSTREAM_ERROR, "Provider disconnected", id="openrouter"),
        pytest.param("error-as-a-string", 502, Kind.UPSTREAM_ERROR, "model runner has", id="ollama"),
        pytest.param("error-first", 429, Kind.RATE_LIMITED, "Rate limit reached", id="before-anything-else"),
        pytest.param("unterminated-error", 502, Kind.UPSTREAM_ERROR, SERVER_ERROR, id="unterminated"),
    ],
)
def test_an_error_ends_the_stream_in_the_providers_words(name, status, kind, message):
    pipe, stream = passthrough(), wire(name)
    out = pipe.feed(stream) + pipe.end()
    error = pipe.error
    assert error is not None
    assert (error.status, error.kind, pipe.done) == (status, kind, False)
    assert message in error.message
    good = [said for said in data(stream) if said not in (b"[DONE]", b"upstream went away") and b"error" not in said]
    assert data(out) == good  # all that came before, nothing of it, and no end mark
    assert pipe.feed(sse(say("more"))) == b""
    told = orjson.loads(data(pipe.fail(error))[0])["error"]
    assert message in told["message"]
    assert set(told) == {"message", "type", "param", "code"}


def test_an_error_in_the_stream_loses_secrets():
    scrub = scrubber(["sk-upstream-secret"], ["api.provider.example"])
    pipe = passthrough(scrub=scrub)
    pipe.feed(sse({"error": {"message": "sk-upstream-secret is bad at https://api.provider.example/v1", "code": 400}}))
    assert pipe.error is not None
    assert pipe.error.message == "[redacted] is bad at https://[redacted]/v1"


def test_our_own_faults_are_told_as_the_dialect_does():
    told = passthrough().fail(TimedOut("idle", 0.5, "the provider was silent inside its answer"))
    assert orjson.loads(data(told)[0])["error"] == {
        "message": "the provider was silent inside its answer for 0.5 s (timeouts.idle)",
        "type": "server_error",
        "param": None,
        "code": "timeout",
    }


# The end of the body...

INSIDE, BEFORE = "the provider's stream ended inside a frame", "the provider's stream ended before the answer did"


@pytest.mark.parametrize(
    ("name", "added", "error"),
    [
        pytest.param("no-end-mark", END_MARK, "", id="end-mark-is-supplied-after-a-finish-reason"),
        pytest.param("cut-after-a-frame", b"", BEFORE, id="cut-between-frames"),
        pytest.param("cut-in-a-frame", None, INSIDE, id="cut-in-a-frame"),
        pytest.param("unterminated-content", b"\n\n", INSIDE, id="whole-content-is-completed-and-the-cut-told"),
        pytest.param("unterminated-finish", b"\n\n" + END_MARK, "", id="finish-is-completed-and-the-end-mark-supplied"),
        pytest.param("unterminated-end-mark", b"\n\n", "", id="end-mark-is-completed"),
        pytest.param("no-finish-reason", b"", "", id="an-end-mark-is-enough"),
    ],
)
@pytest.mark.parametrize("torn", [None, RESET], ids=["eof", "reset"])
def test_the_end_of_the_body(name, added, error, torn):
    stream = wire(name)
    told = outcome([stream], torn)
    if added is None:
        added, stream = b"", stream[: stream.rindex(b"\n\n") + 2]
    assert told.out == stream + added
    assert told.done == (not error)
    assert told.error == (error and torn.message if torn else error)


def test_nothing_at_all_is_a_cut():
    assert outcome([]).error == BEFORE
    assert outcome([b": keep-alive\n\n"]).error == BEFORE


def test_a_cut_after_the_finish_reason_is_a_whole_answer():
    stream = wire("cut-in-the-usage-after-finish")
    told = outcome([stream], RESET)
    assert (told.out, told.error) == (stream[: stream.rindex(b"\n\n") + 2] + END_MARK, "")


def test_usage_is_completed_at_the_end_too():
    stream = wire("unterminated-usage")
    assert outcome([stream], asked=True).out == stream + b"\n" + END_MARK
    assert outcome([stream]).out == stream[: stream.rindex(b"data:")] + END_MARK


def test_the_end_is_told_once():
    pipe = passthrough()
    pipe.feed(wire("no-end-mark"))
    assert pipe.end() == END_MARK
    assert pipe.end() == b""
    pipe = passthrough()
    assert pipe.feed(wire("plain")) == wire("plain")
    assert pipe.end(RESET) == b""
    assert pipe.error is None


@pytest.mark.parametrize("name", [n for n in CHAT if n.startswith("finish-reason") or n in ("plain", "two-choices")])
def test_finish_is_known_when_its_chunk_was_read(name):
    pipe = passthrough()
    stream = wire(name)
    last = next(e for e in interpret(stream) if b'"finish_reason":"' in e.data and b'"finish_reason":""' not in e.data)
    pipe.feed(stream[: last.due - 1])
    assert not pipe.finished
    pipe.feed(stream[last.due - 1 : last.due])
    assert pipe.finished


def test_several_choices_are_finished_when_each_is():
    stream = wire("two-choices")
    first, second = (e.due for e in interpret(stream) if b'"finish_reason":"' in e.data)
    pipe = passthrough(choices=2)
    pipe.feed(stream[:first])
    assert not pipe.finished
    pipe.feed(stream[first:second])
    assert pipe.finished
    assert outcome([stream[:first]], choices=2).error == BEFORE
    assert outcome([stream[:second]], choices=2).out == stream[:second] + END_MARK


def test_too_long_a_frame_is_told_with_its_setting():
    pipe = passthrough(max_frame=64)
    good = b'data: {"a":1}\n\n'
    assert pipe.feed(good + b"data: {" + b"x" * 100) == good
    assert pipe.error is not None
    assert pipe.error.message == "the provider sent more than 64 bytes without an end of frame (limits.max_frame_bytes)"


def test_after_the_end_mark_no_frame_is_too_long():
    pipe = passthrough(max_frame=64)
    pipe.feed(b"data: [DONE]\n\n" + b"x" * 100)
    assert (pipe.done, pipe.error) == (True, None)


def test_part_of_a_frame_is_progress_and_part_of_a_comment_is_none():
    pipe = passthrough()
    for piece, holding in ((b": keep", False), (b"-alive\n\n", False), (b"dat", True), (b"a: {}\n\n", False)):
        pipe.feed(piece)
        assert pipe.holding == holding


def test_a_burst_is_looked_at_where_it_matters():
    many = [say(f"word {i} ") for i in range(200)]
    alone = {**chunk(usage=usage(3, 200)), "choices": []}
    for tail in ([chunk(finish="stop"), alone, b"[DONE]"], [chunk(finish="stop")]):
        stream = sse(*many, *tail)
        told = outcome([stream], asked=True)
        assert told.out == stream + (b"" if tail[-1] == b"[DONE]" else END_MARK)
        assert told.finished
    for place in (0, 100, 199):
        stream = sse(*many[:place], {"error": {"message": "no", "code": 400}}, *many[place:])
        told = outcome([stream])
        assert (told.out, told.error) == (sse(*many[:place]), "no")
    stream = sse(*many[:50], alone, *many[50:], chunk(finish="stop"), b"[DONE]")
    assert data(outcome([stream]).out) == [dumps(each) for each in [*many, chunk(finish="stop")]] + [b"[DONE]"]
