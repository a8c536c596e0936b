"""The files for operators: systemd accepts the units, nginx its example, and `make install` puts all in place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

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
    config = tomllib.loads((ROOT / "config.toml").read_text())
    assert int(service["TimeoutStopSec"][0]) > config.get("server", {}).get("drain", 300)
    assert service["Type"] == ["notify"]
    assert service["KillMode"] == ["mixed"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert "WatchdogSec" in service
    assert "LoadCredential" in service


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
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
    (tmp_path / "site.conf").write_text(re.sub(r"/etc/letsencrypt/live/[^/]+", str(tmp_path), example))
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}} http {{ include {tmp_path}/site.conf; }}")
    found = subprocess.run(
        ["nginx", "-t", "-q", "-e", tmp_path / "errors", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (0, "")


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
    config = install.at("/etc/ai-proxy/config.toml")
    config.write_text("# mine\n")
    install()
    assert config.read_text() == "# mine\n"
    assert len(install.asked.read_text().splitlines()) == 2


def test_without_a_stage_it_goes_where_it_runs(install, tmp_path):
    root = tmp_path / "root"
    install(DESTDIR="", PREFIX=f"{root}/opt", CONFDIR=f"{root}/etc", UNITDIR=f"{root}/units")
    script = root / "opt/bin/ai-proxy"
    assert subprocess.run([script], capture_output=True, text=True).stdout == "installed\n"
    assert (root / "etc/config.toml").exists()
