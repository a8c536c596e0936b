"""The command line: its flags, its exit codes, and how little it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy import __version__, supervisor
from proxy.cli import main
from proxy.commands import Failure, key
from proxy.settings import Overrides

SOURCES = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        pytest.param([], "ai-proxy: the following arguments are required: COMMAND", id="no-command"),
        pytest.param(["sevre"], "ai-proxy: argument COMMAND: invalid choice: 'sevre'", id="unknown-command"),
        pytest.param(["serve", "--port", "x"], "ai-proxy serve: argument --port: invalid int value: 'x'", id="port"),
        pytest.param(["key", "new"], "ai-proxy key new: the following arguments are required: NAME", id="nameless-key"),
        pytest.param(["check", "--lvie"], "ai-proxy: unrecognized arguments: --lvie", id="unknown-flag"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, argv, line):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["", "serve", "check", "key", "key new", "models", "chat"])
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: ai-proxy {command}".rstrip())
    assert ("examples:\n  " if command else "Exit codes:") in out


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ai-proxy {__version__}\n"


@pytest.mark.parametrize(
    ("flags", "config", "overrides"),
    [
        pytest.param([], "config.toml", Overrides(), id="the-file-decides"),
        pytest.param(
            ["--config", "x.toml", "--host", "::1", "--port", "0", "--workers", "2"],
            "x.toml",
            Overrides(host="::1", port=0, workers=2),
            id="flags-decide",
        ),
    ],
)
def test_serve_passes_flags_on_and_its_exit_code_back(monkeypatch, flags, config, overrides):
    calls = []
    monkeypatch.setattr("proxy.commands.serve.serve", lambda *args: calls.append(args) or 7)
    assert main(["serve", *flags]) == 7
    assert calls == [(Path(config), overrides)]


def test_serve_is_the_supervisors():
    from proxy.commands import serve

    assert serve.serve is supervisor.serve


@pytest.mark.parametrize(
    ("failure", "code", "err"),
    [
        pytest.param(Failure("it broke"), 1, "ai-proxy: it broke\n", id="failure"),
        pytest.param(Failure("file: bad", code=2, prefixed=False), 2, "file: bad\n", id="configuration"),
        pytest.param(KeyboardInterrupt(), 130, "", id="ctrl-c"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(monkeypatch, capsys, failure, code, err):
    def run(args):
        raise failure

    monkeypatch.setattr(key, "run", run)
    assert main(["key", "new", "x"]) == code
    assert capsys.readouterr().err == err


def test_help_and_keys_do_not_wait_for_a_web_server_to_be_imported():
    code = (
        "import sys; from proxy.cli import main; main(['key', 'new', 'x']);"
        "print({'aiohttp', 'asyncio', 'rich', 'msgspec', 'uvloop', 'orjson'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SOURCES, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "set()"


def test_the_module_and_the_console_script_are_the_same():
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "--version"], cwd=SOURCES, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ai-proxy {__version__}\n"


def test_a_mistake_of_the_operator_is_no_traceback(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("[server]\nprot = 1\n")
    for command in ("serve", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "proxy", command, "--config", config],
            cwd=SOURCES,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr == f'{config}: server: unknown setting "prot"; did you mean "port"?\n'
