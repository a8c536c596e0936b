"""The bench runs and fills every row; what the figures say is for people to judge."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.bench.__main__ import IMPORTS, LOADS, ROWS, TRANSLATED, profile
from tests.bench.load import whole_answer, whole_stream
from tests.bench.targets import INSTALLED, ROOT, TARGETS, available, envoy_bootstrap
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
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(file.read_text())
    assert told["faults"] == []
    assert told["rows"].keys() == ROWS.keys()
    for row, figures in told["rows"].items():
        measured = {name for name, value in figures.items() if value is not None}
        targets = {"gateway"} if row in TRANSLATED else set(available())
        assert measured == (targets & IMPORTS.keys() if row == "import" else targets)
        assert ROWS[row][0] in done.stdout


@pytest.mark.slow
def test_the_profile_names_functions_for_every_load(capfd):
    assert profile(0.1) == 0
    told = capfd.readouterr().out
    for what in LOADS:
        assert what in told
    assert told.count("tottime") == told.count("to 25 due to restriction") == len(LOADS)
    assert "handlers.py" in told


@pytest.mark.parametrize("installed", [set(), {"nginx"}, {"envoy"}, set(INSTALLED)], ids=str)
def test_what_is_not_installed_is_left_out(monkeypatch, installed):
    monkeypatch.setattr(
        "tests.bench.targets.shutil.which", lambda name: f"/usr/bin/{name}" if name in installed else None
    )
    assert set(available()) == set(TARGETS) - set(INSTALLED) | installed


def test_envoy_leads_from_its_port_to_the_upstream_s():
    resources = envoy_bootstrap(8001, 8002)["static_resources"]
    [listener], [cluster] = resources["listeners"], resources["clusters"]
    [manager] = [one["typed_config"] for one in listener["filter_chains"][0]["filters"]]
    [host] = manager["route_config"]["virtual_hosts"]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert listener["address"]["socket_address"]["port_value"] == 8001
    assert endpoint["endpoint"]["address"]["socket_address"]["port_value"] == 8002
    assert {route["route"]["cluster"] for route in host["routes"]} == {cluster["name"]}


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


def test_the_upstream_speaks_messages_too():
    plan = Plan.of(Wish(frames=7).prompt().encode(), messages=True)
    raw = b"".join(plan.writes)
    assert "no end mark" in whole_stream(raw, 7)  # all frames, in order; [DONE] is for the gateway to say
    told = re.findall(rb'event: (\w+)\ndata: (\{"type":"(\w+)".*\})\n\n', raw)
    middle = [b"content_block_delta"] * 7
    assert [name for name, _, _ in told] == [
        b"message_start",
        b"content_block_start",
        *middle,
        b"content_block_stop",
        b"message_delta",
        b"message_stop",
    ]
    assert all(name == json.loads(data)["type"].encode() for name, data, _ in told)


def test_the_load_sees_what_is_wrong_with_an_answer():
    assert not whole_answer(WHOLE)
    assert "503" in whole_answer(WHOLE.replace(b"200", b"503"))
