"""`models` is a table of what a gateway serves."""

from __future__ import annotations

import os
import pty

import pytest
from aiohttp import web

from proxy.commands import show
from tests.commands.gateway import program


async def test_the_models_are_a_plain_table_for_other_programs(gateway, command, capsys):
    assert await command("models", "--url", gateway.url, "--key", "a-key") == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "MODEL          LABEL          DESCRIPTION",
        "deepseek-chat  DeepSeek Chat  General conversation.  default",
        "gpt-4",
        "",
    ]
    assert [(path, headers["Authorization"]) for path, headers, _ in gateway.asked] == [
        ("/v1/models", "Bearer a-key"),
        ("/api/models", "Bearer a-key"),
    ]


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_means_the_same_with_and_without_v1(gateway, command, suffix):
    assert await command("models", "--url", gateway.url + suffix) == 0


async def test_the_environment_says_where_the_gateway_is(gateway, command, monkeypatch):
    monkeypatch.setenv("AI_PROXY_URL", gateway.url)
    monkeypatch.setenv("AI_PROXY_KEY", "from-the-environment")
    assert await command("models") == 0
    assert gateway.asked[0][1]["Authorization"] == "Bearer from-the-environment"


async def test_without_a_key_none_is_sent(gateway, command):
    await command("models", "--url", gateway.url)
    assert "Authorization" not in gateway.asked[0][1]


@pytest.mark.parametrize(
    ("refusal", "key", "line"),
    [
        pytest.param(
            lambda: web.json_response({"error": {"message": "missing\nkey"}}, status=401),
            "",
            "401 Unauthorized: missing key (give a key with --key or AI_PROXY_KEY)",
            id="no-key",
        ),
        pytest.param(
            lambda: web.json_response({"error": {"message": "unknown key"}}, status=401),
            "a-key",
            "401 Unauthorized: unknown key",
            id="wrong-key",
        ),
        pytest.param(
            lambda: web.json_response({"error": "overloaded", "details": "draining"}, status=503),
            "",
            "503 Service Unavailable: draining",
            id="simple-form",
        ),
        pytest.param(
            lambda: web.Response(text="<h1>\x1b[31mBad Gateway", status=502), "", "502 Bad Gateway", id="some-web-page"
        ),
        pytest.param(
            lambda: web.Response(status=301, headers={"Location": "http://127.0.0.1:1/"}),
            "a-key",
            "301 Moved Permanently: the gateway is not at {url}",
            id="a-redirect-does-not-get-the-key",
        ),
        pytest.param(lambda: web.Response(text="ok"), "", "{url} does not answer like a gateway", id="not-json"),
        pytest.param(lambda: web.json_response([]), "", "{url} does not answer like a gateway", id="other-json"),
    ],
)
async def test_a_refusal_is_one_line_and_exit_code_1(gateway, command, capsys, refusal, key, line):
    gateway.refusal = refusal
    assert await command("models", "--url", gateway.url, "--key", key) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"ai-proxy: {line.format(url=gateway.url)}\n"


async def test_nobody_there_is_one_line_and_exit_code_1(command, capsys, unused_tcp_port):
    assert await command("models", "--url", f"http://127.0.0.1:{unused_tcp_port}") == 1
    assert capsys.readouterr().err == (
        f"ai-proxy: cannot reach 127.0.0.1:{unused_tcp_port}: connection refused; is the gateway running?\n"
    )


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        pytest.param(("--url", "ftp://x"), "--url: must begin with https:// or http://", id="scheme"),
        pytest.param(("--url", "x"), "--url: must begin with https:// or http://", id="no-scheme"),
        pytest.param(("--key", "a\r\nb"), "--key: has characters other than visible ASCII", id="key"),
    ],
)
async def test_flags_that_cannot_be_meant_are_exit_code_2(command, capsys, flags, line):
    assert await command("models", *flags) == 2
    assert capsys.readouterr().err == f"ai-proxy: {line}\n"


async def test_a_terminal_gets_a_table_with_rules(gateway):
    screen, stdout = pty.openpty()
    process = await program("models", "--url", gateway.url, stdout=stdout, env={"TERM": "xterm", "COLUMNS": "120"})
    os.close(stdout)
    _, err = await process.communicate()
    shown = os.read(screen, 65536).decode()
    os.close(screen)
    assert (process.returncode, err) == (0, b"")
    assert "deepseek-chat" in shown
    assert "DeepSeek Chat" in shown
    assert "───" in shown


async def test_a_reader_that_left_is_no_reason_for_a_traceback(gateway):
    reader, writer = os.pipe()
    os.close(reader)
    process = await program("models", "--url", gateway.url, stdout=writer)
    os.close(writer)
    _, err = await process.communicate()
    assert (process.returncode, err) == (141, b"")


def test_text_from_elsewhere_cannot_steer_the_terminal():
    assert show.harmless("a\x1b[2J\x9b31m\x07\r\nb\tc\x7f") == "a�[2J�31m�\nb\tc�"
