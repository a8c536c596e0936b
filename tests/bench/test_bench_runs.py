"""The bench runs and fills every row; what the figures say is for people to judge."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.bench.__main__ import IMPORTS, ROWS
from tests.bench.load import whole_answer, whole_stream
from tests.bench.targets import ROOT, available
from tests.bench.upstream import DONE, STREAM_HEAD, WHOLE, Plan, Wish, counted

BURST = b"".join(Plan.of(Wish(frames=7).prompt().encode()).writes)


@pytest.mark.slow
def test_every_row_is_measured_for_every_target(tmp_path):
    file = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--micro", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text())
    assert told["faults"] == []
    assert told["rows"].keys() == ROWS.keys()
    for row, figures in told["rows"].items():
        measured = {name for name, value in figures.items() if value is not None}
        assert measured == (set(available()) & IMPORTS.keys() if row == "import" else set(available()))
        assert ROWS[row][0] in done.stdout


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        pytest.param(BURST, "", id="whole"),
        pytest.param(BURST.replace(counted(0, 3), b""), "6 of 7", id="a-frame-is-missing"),
        pytest.param(BURST.replace(counted(0, 3), counted(0, 2)), "out of order", id="a-frame-comes-twice"),
        pytest.param(BURST.replace(DONE, b"0\r\n\r\n"), "no end mark", id="no-done"),
        pytest.param(BURST.replace(b"200", b"502"), "502", id="refused"),
        pytest.param(STREAM_HEAD + b"0\r\n\r\n", "0 of 7", id="empty"),
    ],
)
def test_the_load_sees_what_is_wrong_with_a_stream(raw, fault):
    said = whole_stream(raw, 7)
    assert fault in said
    assert bool(said) == bool(fault)


def test_the_load_sees_what_is_wrong_with_an_answer():
    assert not whole_answer(WHOLE)
    assert "503" in whole_answer(WHOLE.replace(b"200", b"503"))
