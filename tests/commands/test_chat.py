"""`chat` prints an answer as it arrives, and then how fast it was."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import signal

import pytest
from aiohttp import web

from proxy.commands import chat
from tests.commands.gateway import DONE, USAGE, delta, frame, program

ANSWER = [delta(role="assistant"), delta("Hel"), delta("lo"), delta(finish="stop"), USAGE, DONE]


async def test_the_answer_is_on_stdout_and_the_figures_are_on_stderr(gateway, command, capsys):
    gateway.script = ANSWER
    assert await command("chat", "--url", gateway.url, "--model", "gpt-4", "Say", "hello") == 0
    captured = capsys.readouterr()
    assert captured.out == "Hello\n"
    assert re.fullmatch(
        r"deepseek-chat · first token after \d+\.\d\d s · \d+\.\d tokens/s · 7 tokens in, 3 out\n", captured.err
    )
    ((_, headers, body),) = gateway.asked
    assert headers["Content-Type"] == "application/json"
    assert body == {
        "model": "gpt-4",
        "messages": [{"role": "user", "content": "Say hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_the_gateways_default_is_meant_where_no_model_is_named(gateway, command):
    gateway.script = ANSWER
    await command("chat", "--url", gateway.url, "hi")
    assert "model" not in gateway.asked[0][2]


async def test_text_is_printed_before_the_next_frame_is_there(gateway):
    more = asyncio.Event()
    gateway.script = [delta("Hel"), more, *ANSWER[2:]]
    process = await program("chat", "--url", gateway.url, "hi")
    async with asyncio.timeout(30):
        assert await process.stdout.readexactly(3) == b"Hel"
        more.set()
        out, err = await process.communicate()
    assert out == b"lo\n"
    assert process.returncode == 0, err


async def test_frames_do_not_depend_on_where_the_network_cuts_them(gateway, command, capsys):
    whole = delta("grün 🌍") + delta(finish="stop") + DONE
    gateway.script = [whole[i : i + 1] for i in range(len(whole))]
    assert await command("chat", "--url", gateway.url, "hi") == 0
    assert capsys.readouterr().out == "grün 🌍\n"


@pytest.mark.parametrize("flags", [("-",), ()], ids=["dash", "nothing"])
async def test_the_prompt_may_come_through_a_pipe(gateway, flags):
    gateway.script = ANSWER
    process = await program("chat", "--url", gateway.url, *flags)
    await process.communicate("Warum ist der Himmel blau?\nGrün?".encode())
    assert process.returncode == 0
    assert gateway.asked[0][2]["messages"][0]["content"] == "Warum ist der Himmel blau?\nGrün?"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("words", "stdin", "line"),
    [
        pytest.param([], Terminal(), 'what is the question?  ai-proxy chat "Why is the sky blue?"', id="nothing-typed"),
        pytest.param([" "], Terminal(), "the prompt is empty", id="blank"),
        pytest.param(["-"], io.TextIOWrapper(io.BytesIO(b"\n")), "the prompt is empty", id="empty-pipe"),
    ],
)
async def test_no_question_is_exit_code_2(command, capsys, monkeypatch, words, stdin, line):
    monkeypatch.setattr("sys.stdin", stdin)
    assert await command("chat", *words) == 2
    assert capsys.readouterr().err == f"ai-proxy: {line}\n"


@pytest.mark.parametrize(
    ("script", "out", "line"),
    [
        pytest.param(
            [delta("Hel"), frame(error={"message": "idle for 120 s (timeouts.idle)"})],
            "Hel\n",
            "the answer broke off: idle for 120 s (timeouts.idle)",
            id="error-frame",
        ),
        pytest.param(
            [frame(error=True)], "", "the answer broke off: the gateway does not say why", id="error-without-words"
        ),
        pytest.param([delta("Hel")], "Hel\n", "the stream ended before the answer did", id="cut"),
        pytest.param([], "", "the stream ended before the answer did", id="empty"),
        pytest.param([b"data: {\n\n"], "", "the stream has a frame that is not JSON", id="torn-json"),
        pytest.param([b"data: []\n\n"], "", "the stream has a frame that is not an object", id="no-object"),
    ],
)
async def test_an_answer_that_breaks_off_is_one_line_and_exit_code_1(gateway, command, capsys, script, out, line):
    gateway.script = script
    assert await command("chat", "--url", gateway.url, "hi") == 1
    captured = capsys.readouterr()
    assert captured.out == out
    assert captured.err == f"ai-proxy: {line}\n"


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        pytest.param(
            lambda: web.json_response({"error": {"message": 'no model "x"; did you mean "y"?'}}, status=404),
            '404 Not Found: no model "x"; did you mean "y"?',
            id="unknown-model",
        ),
        pytest.param(
            lambda: web.json_response({}), "{url} answered application/json where a stream was asked for", id="json"
        ),
    ],
)
async def test_a_refusal_is_one_line_and_exit_code_1(gateway, command, capsys, refusal, line):
    gateway.refusal = refusal
    assert await command("chat", "--url", gateway.url, "hi") == 1
    assert capsys.readouterr().err == f"ai-proxy: {line.format(url=gateway.url)}\n"


async def test_a_frame_without_an_end_is_not_kept_in_memory(gateway, command, capsys, monkeypatch):
    monkeypatch.setattr(chat, "MAX_FRAME", 1000)
    gateway.script = [b"data: " + b"x" * 2000, asyncio.Event()]
    assert await command("chat", "--url", gateway.url, "hi") == 1
    assert capsys.readouterr().err == "ai-proxy: a frame of the stream is longer than 1000 bytes\n"


async def test_ctrl_c_is_quiet_and_lets_go_of_the_gateway(gateway):
    gateway.script = [delta("Hel"), asyncio.Event()]
    process = await program("chat", "--url", gateway.url, "hi")
    async with asyncio.timeout(30):
        assert await process.stdout.readexactly(3) == b"Hel"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        await gateway.left.wait()
    assert (process.returncode, out, err) == (130, b"\n", b"")


@pytest.mark.parametrize(
    ("script", "figures"),
    [
        pytest.param(
            [delta("a"), delta("b", finish="stop")], r"deepseek-chat · .* frames/s · usage unknown", id="no-usage"
        ),
        pytest.param(
            [delta("a", finish="stop"), USAGE], r"deepseek-chat · first token .* · 7 tokens in, 3 out", id="at-once"
        ),
        pytest.param([delta(finish="stop"), USAGE], r"deepseek-chat · 7 tokens in, 3 out", id="no-text"),
    ],
)
def test_figures_that_are_not_known_are_not_made_up(script, figures):
    answer = chat.Answer()
    for line in script:
        answer.take(line.removeprefix(b"data: "))
    assert re.fullmatch(figures, answer.summary())


@pytest.mark.parametrize(
    "shape", [b'{"choices":7}', b'{"choices":[null]}', b'{"choices":[{"delta":[]}]}', b'{"usage":1}']
)
def test_a_frame_of_another_shape_says_nothing(shape):
    assert chat.Answer().take(shape) == []


async def test_a_terminal_sees_thoughts_dimmed_and_no_foreign_escape_sequences(gateway):
    gateway.script = [delta(reasoning_content="hm"), delta("a\x1b[2Jb"), delta(finish="stop"), DONE]
    screen, stdout = pty.openpty()
    process = await program("chat", "--url", gateway.url, "hi", stdout=stdout, env={"TERM": "xterm"})
    os.close(stdout)
    _, err = await process.communicate()
    shown = os.read(screen, 65536).decode()
    os.close(screen)
    assert process.returncode == 0, err
    assert "\x1b[2mhm\x1b[0m\r\na�[2Jb\r\n" in shown
    assert "waiting for the first token" in shown


async def test_other_programs_do_not_see_thoughts(gateway, command, capsys):
    gateway.script = [delta(reasoning_content="hm"), *ANSWER]
    assert await command("chat", "--url", gateway.url, "hi") == 0
    assert capsys.readouterr().out == "Hello\n"
