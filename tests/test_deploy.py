"""The files for operators: systemd accepts the units, nginx its example, and `make install` puts all in place."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.functional import config
from tests.functional.wire import connect, listener
from tests.processes import PATIENCE, chat, finished, half_open, serving

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path):
    """The units, with a program that is there."""
    for unit in DEPLOY.glob("ai-proxy.*"):
        text = unit.read_text().replace("/opt/ai-proxy/bin/ai-proxy", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@needs_systemd
def test_systemd_has_nothing_to_say_about_the_units(units):
    found = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, units.iterdir()))], capture_output=True, text=True
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


@needs_systemd
def test_the_service_is_shut_off_from_the_rest_of_the_machine(units):
    found = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15", units / "ai-proxy.service"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


def settings(unit):
    found = {}
    for line in (DEPLOY / unit).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_systemd_waits_longer_than_the_drain_and_pings_are_expected():
    service = settings("ai-proxy.service")
    shipped = tomllib.loads((ROOT / "config.toml").read_text())
    assert int(service["TimeoutStopSec"][0]) > shipped.get("server", {}).get("drain", 300)
    assert service["Type"] == ["notify"]
    assert service["KillMode"] == ["mixed"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert "WatchdogSec" in service
    assert "LoadCredential" in service


needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")


def nginx_around(directory, example):
    """A configuration of its own for the example, which stands in the `http` block."""
    (directory / "site.conf").write_text(example)
    path = directory / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    http = f"access_log off; {temporary} include {directory}/site.conf;"
    path.write_text(f"daemon off; master_process off; pid {directory}/pid; events {{}} http {{ {http} }}")
    return ["nginx", "-q", "-e", directory / "errors", "-c", path]


@needs_nginx
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_nginx_accepts_its_example(tmp_path):
    certificate = ["-x509", "-nodes", "-subj", "/CN=x", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", tmp_path / "privkey.pem", "-out", tmp_path / "fullchain.pem"]
    subprocess.run(
        ["openssl", "req", *certificate, *files],
        check=True,
        capture_output=True,
    )
    example = (DEPLOY / "nginx.conf").read_text()
    nginx = nginx_around(tmp_path, re.sub(r"/etc/letsencrypt/live/[^/]+", str(tmp_path), example))
    found = subprocess.run([*nginx, "-t"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@needs_nginx
async def test_behind_nginx_a_frame_arrives_before_the_next_one_exists(tmp_path, upstream):
    async with serving(tmp_path, config(upstream.url)) as process:
        with listener() as free:
            port = free.getsockname()[1]
        example = (DEPLOY / "nginx.conf").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{process.port}")
        example = re.sub(r"listen 443 ssl;", f"listen 127.0.0.1:{port};", example)
        example = re.sub(r"(listen \[::\]|ssl_)[^;]+;", "", example)
        nginx = await asyncio.create_subprocess_exec(*nginx_around(tmp_path, example))
        try:
            rest = half_open(upstream)
            async with await behind(port, nginx) as client:
                answer = await chat(client, stream=True)
                while (await answer.event()).content != "a":
                    pass
                rest.set()
                await finished([answer])
        finally:
            nginx.terminate()
            await nginx.wait()


async def behind(port, nginx):
    """A connection to nginx, as soon as it listens."""
    async with asyncio.timeout(PATIENCE):
        while nginx.returncode is None:
            try:
                return await connect(port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
    raise AssertionError("nginx has ended")


# make install...

#: Stands for Python: its `venv` is a real one, with a `pip` that notes what it was asked and installs as pip does, a
#: script that names its interpreter.  Nothing is fetched.
PYTHON = f"""\
#!{sys.executable}
import os, subprocess, sys
arguments = sys.argv[1:]
if arguments[:2] != ["-m", "venv"]:
    os.execv(sys.executable, [sys.executable, *arguments])
stage = arguments[2]
subprocess.run([sys.executable, "-m", "venv", "--without-pip", stage], check=True)
site = subprocess.run(
    [stage + "/bin/python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
    check=True, capture_output=True, text=True,
).stdout.strip()
os.makedirs(site + "/pip", exist_ok=True)
open(site + "/pip/__main__.py", "w").write('''
import os, sys
script = os.path.join(os.path.dirname(sys.executable), "ai-proxy")
with open(script, "w") as file:
    file.write("#!" + sys.executable + "\\\\nprint('installed')\\\\n")
os.chmod(script, 0o755)
with open(os.environ["ASKED"], "a") as file:
    print(*sys.argv[1:], file=file)
''')
"""


class Install:
    """`make install` into a stage."""

    def __init__(self, tmp_path):
        self.stage = tmp_path / "stage"
        self.asked = tmp_path / "asked"
        self._python = tmp_path / "python"
        self._python.write_text(PYTHON)
        self._python.chmod(0o755)

    def __call__(self, **variables):
        told = {"DESTDIR": self.stage, "PYTHON": self._python, **variables}
        found = subprocess.run(
            [
                "make",
                "--no-print-directory",
                "-C",
                ROOT,
                "install",
                *(f"{name}={value}" for name, value in told.items()),
            ],
            env={**os.environ, "ASKED": str(self.asked)},
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout

    def at(self, path):
        return self.stage / path.lstrip("/")


@pytest.fixture
def install(tmp_path):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    return Install(tmp_path)


def test_everything_is_put_where_a_debian_administrator_looks(install):
    said = install()
    assert "/etc/ai-proxy/config.toml" in said
    assert install.at("/opt/ai-proxy/bin/ai-proxy").exists()
    assert install.at("/etc/ai-proxy/config.toml").read_bytes() == (ROOT / "config.toml").read_bytes()
    assert install.at("/etc/ai-proxy/keys").stat().st_mode & 0o777 == 0o700
    for unit in ("ai-proxy.service", "ai-proxy.socket"):
        assert install.at(f"/lib/systemd/system/{unit}").read_text() == (DEPLOY / unit).read_text()
    assert install.asked.read_text().split()[-1] == "."


def test_nothing_in_the_stage_names_the_stage(install):
    install()
    program = install.at("/opt/ai-proxy/bin/ai-proxy")
    assert program.read_text().startswith("#!/opt/ai-proxy/bin/python")
    assert os.access(program, os.X_OK)
    for file in (*install.at("/opt/ai-proxy/bin").iterdir(), install.at("/opt/ai-proxy/pyvenv.cfg")):
        assert str(install.stage) not in file.read_text(errors="replace") or file.is_symlink(), file


def test_places_can_be_chosen_and_the_unit_follows(install):
    install(PREFIX="/srv/gateway", CONFDIR="/etc/gateway", UNITDIR="/usr/lib/systemd/system", EXTRAS="redis")
    unit = install.at("/usr/lib/systemd/system/ai-proxy.service").read_text()
    assert "ExecStart=/srv/gateway/bin/ai-proxy serve --config /etc/gateway/config.toml\n" in unit
    assert "LoadCredential=key:/etc/gateway/keys\n" in unit
    assert install.at("/srv/gateway/bin/ai-proxy").read_text().startswith("#!/srv/gateway/bin/python")
    assert install.at("/etc/gateway/config.toml").exists()
    assert install.asked.read_text().split()[-1] == ".[redis]"


def test_a_second_time_keeps_the_configuration(install):
    install()
    mine = install.at("/etc/ai-proxy/config.toml")
    mine.write_text("# mine\n")
    install()
    assert mine.read_text() == "# mine\n"
    assert len(install.asked.read_text().splitlines()) == 2


def test_without_a_stage_it_goes_where_it_runs(install, tmp_path):
    root = tmp_path / "root"
    install(DESTDIR="", PREFIX=f"{root}/opt", CONFDIR=f"{root}/etc", UNITDIR=f"{root}/units")
    script = root / "opt/bin/ai-proxy"
    assert subprocess.run([script], capture_output=True, text=True).stdout == "installed\n"
    assert (root / "etc/config.toml").exists()
