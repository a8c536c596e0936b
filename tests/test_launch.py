"""What a process was started with, and what a reload may change of it."""

import signal
from types import SimpleNamespace

import pytest

from proxy import launch, sockets
from proxy.launch import Launch
from proxy.settings import Overrides, SettingsError, load
from tests.functional import config

URL = "http://127.0.0.1:9"


@pytest.fixture
def started(tmp_path):
    """Launch with ``config(URL, text)``; ``rewrite`` changes the file afterwards."""
    opened = []

    def start(text="", host="127.0.0.1", overrides=None, **tables):
        path = tmp_path / "config.toml"
        path.write_text(config(URL, text, **tables))
        overrides = overrides or Overrides()
        settings = load(path, {}, overrides).settings
        opened.extend(listening := sockets.bind(host, 0))
        return Launch(config=path, overrides=overrides, settings=settings, sockets=listening)

    yield start
    sockets.close(opened)


def rewrite(launched, text="", **tables):
    launched.config.write_text(config(URL, text, **tables))


def test_a_reload_reads_the_file_again(started):
    launched = started()
    rewrite(launched, "[timeouts]\nidle = 7")
    settings, told = launched.reload()
    assert settings.timeouts.idle == 7
    assert told == []


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        pytest.param('[server]\nhost = "localhost"', "server.host", id="host"),
        pytest.param("[server]\nport = 8081", "server.port", id="port"),
        pytest.param(
            '[server]\nworkers = 2\n[state]\nurl = "redis://127.0.0.1:1"',
            "server.workers, [state]",
            id="workers-and-state",
        ),
    ],
)
def test_what_needs_a_restart_stays_and_is_said(started, text, changed):
    launched = started()
    rewrite(launched, text + "\n[timeouts]\nidle = 7")
    settings, told = launched.reload()
    assert settings.timeouts.idle == 7
    assert (settings.server, settings.state) == (launched.settings.server, launched.settings.state)
    assert told == [f"{launched.config}: {changed}: changed, but this needs a restart"]


def test_other_settings_of_the_server_do_not_need_a_restart(started):
    launched = started()
    rewrite(launched, '[server]\nname = "Other"\ndrain = 7')
    settings, told = launched.reload()
    assert (settings.server.name, settings.server.drain) == ("Other", 7)
    assert told == []


def test_flags_win_over_the_new_file_too(started):
    launched = started(overrides=Overrides(port=8081))
    rewrite(launched, "[server]\nport = 8082")
    settings, told = launched.reload()
    assert settings.server.port == 8081
    assert told == []


def test_a_warning_is_told_again(started):
    launched = started()
    rewrite(launched, providers=[{"name": "other", "kind": "openai", "api_key": "env:NOT_SET_ANYWHERE"}])
    _, told = launched.reload()
    assert len(told) == 1
    assert "NOT_SET_ANYWHERE is not set" in told[0]


def test_a_reload_does_not_open_a_gateway_that_others_reach(started):
    """The host in the file may say loopback by now; the socket is what counts."""
    launched = started(host="0.0.0.0")
    rewrite(launched, keys=[])
    with pytest.raises(SettingsError, match=r"loopback addresses only, not 0\.0\.0\.0; make a key with"):
        launched.reload()


def test_an_open_gateway_does_not_start_on_a_socket_that_others_reach(started):
    with pytest.raises(SettingsError, match=r"loopback addresses only, not 0\.0\.0\.0"):
        started(host="0.0.0.0", keys=[])
    assert started(host="0.0.0.0", keys=[], auth={"anonymous": True})


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        pytest.param({}, "(closed: 1 key), 1 model", id="closed"),
        pytest.param({"keys": []}, "(open to this machine: no [[keys]]), 1 model", id="open"),
        pytest.param(
            {"keys": [], "auth": {"anonymous": True}},
            "(open to everybody: auth.anonymous = true), 1 model",
            id="anonymous",
        ),
        pytest.param(
            {"keys": [{"name": "b", "key": "sk-b"}], "models": [{"id": "n", "provider": "up"}]},
            "(closed: 2 keys), 2 models",
            id="more-than-one",
        ),
    ],
)
def test_the_start_line_says_where_to_whom_and_what(started, tables, line):
    launched = started(**tables)
    port = launched.sockets[0].getsockname()[1]
    assert launched.serving() == f"listening on http://127.0.0.1:{port} {line}"


def test_the_second_signal_ends_with_the_number_that_shells_use(monkeypatch):
    codes = []
    monkeypatch.setattr(launch, "os", SimpleNamespace(_exit=codes.append))
    launch.leave_now(signal.SIGINT)
    launch.leave_now(signal.SIGTERM)
    assert codes == [130, 143]
