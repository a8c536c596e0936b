"""A soak of seconds runs, and what it judges by can tell good from bad."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.findings import ALLOWED, Finding, Look, growth, unusual
from tests.bench.moods import MOODS
from tests.bench.targets import ROOT
from tests.bench.visits import DIALECTS, end_of

CHAT = DIALECTS[0]
PIECES = b'data: {"choices":[{"delta":{"content":"@0@ @1@"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"it broke"}}\n\n'


@pytest.mark.slow
def test_a_short_soak_leaves_nothing_behind():
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.soak", "--minutes", "0.05", "--rate", "30", "--seed", "7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    ("streamed", "status", "raw", "end"),
    [
        pytest.param(True, 200, PIECES + DONE, "complete", id="stream"),
        pytest.param(True, 200, PIECES + ERROR, "told", id="broken-stream"),
        pytest.param(True, 200, ERROR, "told", id="error-alone"),
        pytest.param(True, 200, PIECES, "neither end nor error", id="silent-end"),
        pytest.param(True, 200, PIECES + ERROR + DONE, "both an end and an error", id="error-and-end"),
        pytest.param(True, 200, PIECES.replace(b"@0@", b"") + DONE, "1 of 2", id="a-piece-is-missing"),
        pytest.param(True, 200, PIECES.replace(b"@0@ @1@", b"@1@ @0@") + DONE, "out of order", id="out-of-order"),
        pytest.param(False, 200, PIECES, "complete", id="whole"),
        pytest.param(False, 200, b"{}", "0 of 2", id="empty"),
        pytest.param(False, 502, b'{"error":{}}', "refused", id="refused"),
        pytest.param(False, 502, b"<html>", "502 without an error", id="refused-without-words"),
    ],
)
def test_visits_see_how_an_exchange_ended(streamed, status, raw, end):
    said = end_of(CHAT, streamed, status, raw, 2)
    assert end in said
    assert (said == end) == (end in {"complete", "told", "refused"})


def line(message: str, level: str = "info", **more: object) -> str:
    return json.dumps({"time": "2026-01-01T00:00:00.000Z", "level": level, "message": message, **more})


@pytest.mark.parametrize(
    ("said", "strange"),
    [
        pytest.param(line("request", status=200, outcome="ok"), False, id="request"),
        pytest.param(line("request", status=502, outcome="failed", error="upstream_error"), False, id="failed-request"),
        pytest.param(line("request", status=500, outcome="failed", error="internal_error"), True, id="our-own-fault"),
        pytest.param(line("request", status=200, outcome="maybe"), True, id="an-unknown-outcome"),
        pytest.param(line("listening on http://127.0.0.1:1 (closed: 4 keys), 7 models"), False, id="start"),
        pytest.param(line("reloaded /tmp/config.toml: 7 models, 4 keys"), False, id="reload"),
        pytest.param(
            line("not reloaded, everything stays as it was: /tmp/config.toml: Expected", "error"), False, id="bad-file"
        ),
        pytest.param(
            line("not reloaded, everything stays as it was: TypeError at a.py:1 b", "error"), True, id="bad-reload"
        ),
        pytest.param(line("ended; cut after 10 s: 1 exchange", "warning"), True, id="stragglers"),
        pytest.param(line("event loop: Task exception was never retrieved", "error"), True, id="lost-exception"),
        pytest.param(line("reloaded x", exception="ValueError at a.py:1 b"), True, id="exception"),
        pytest.param("Traceback (most recent call last):", True, id="traceback"),
        pytest.param('"text"', True, id="no-object"),
        pytest.param("", True, id="empty"),
    ],
)
def test_the_log_has_lines_that_belong_there(said, strange):
    assert unusual(said) == strange


def test_memory_is_compared_when_it_is_warm():
    rising = [Look(at, 40_000 + min(at, 120) * 100, 20) for at in range(600)]
    assert growth(rising, 600) == (52_000, 52_000)
    leaking = [Look(at, 40_000 + at * 20, 20) for at in range(600)]
    warm, last = growth(leaking, 600)
    assert last - warm > ALLOWED


def test_a_finding_says_whether_it_is_wrong():
    assert str(Finding(True, "3 tasks")).split() == ["WRONG", "3", "tasks"]
    assert str(Finding(False, "3 tasks")).split() == ["ok", "3", "tasks"]


def test_the_provider_has_moods_for_every_end():
    assert {frozenset({"complete"}), frozenset({"refused"}), frozenset({"told", "refused"})} == {
        mood.ends for mood in MOODS.values()
    }
