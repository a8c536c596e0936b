"""What is measured, and how it is started: processes with cores of their own, and what they have used."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .load import KEY, Report, Task

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
CPUS = sorted(os.sched_getaffinity(0))
#: The target works alone on the first core; whoever keeps it busy has the others.
TARGET_CPUS, LOAD_CPUS = {CPUS[0]}, set(CPUS[1:]) or {CPUS[0]}
TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Process:
    """A program in a session of its own, on its own cores; figures are about the whole session."""

    def __init__(self, argv: list[str], cpus: set[int], **options: Any) -> None:
        quiet: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        self.argv = argv
        self.child = subprocess.Popen(
            argv,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            **{"cwd": ROOT, **quiet, **options},
        )

    def pids(self) -> list[int]:
        """The processes of the session that are alive."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # it has just ended
                if int(fields[3]) == self.child.pid and fields[0] != "Z":
                    found.append(int(entry))
        return found

    def cpu(self) -> float:
        """User and system seconds that the session has used."""
        # CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) numbers it: nanoseconds, all its threads.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids())

    def memory(self) -> int:
        """Resident KiB."""
        total = 0
        for pid in self.pids():
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            total += int(found[1]) if found else 0
        return total

    def stop(self) -> None:
        """At once: nothing is measured about an orderly end, and a bare relay takes a minute for it."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Load(Process):
    """The load process, told what to do line by line."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "tests.bench.load"]
        super().__init__(argv, LOAD_CPUS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None, text=True)

    def run(self, task: Task | None) -> Report:
        """Do a task to its end.  None only lets go of what the task before holds."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(asdict(task) if task else {}) + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError("the load has ended")
        return Report(**json.loads(line))

    def stop(self) -> None:
        super().stop()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                pipe.close()


# The targets

#: How each is started: its port, the upstream's port and a scratch directory become an argument list.
TARGETS: dict[str, Callable[[int, int, Path], list[str]]] = {}


def target(start: Callable[[int, int, Path], list[str]]) -> Callable[[int, int, Path], list[str]]:
    TARGETS[start.__name__] = start
    return start


@target
def gateway(port: int, upstream: int, directory: Path) -> list[str]:
    """As an operator runs it: closed, with the log that it has by default."""
    file = directory / "config.toml"
    file.write_text(f"""
        server = {{ host = "127.0.0.1", port = {port} }}
        keys = [{{ name = "bench", key = "{KEY}" }}]
        models = [{{ id = "m", provider = "up" }}, {{ id = "t", provider = "messages" }}]
        [[providers]]
        name = "up"
        kind = "openai"
        base_url = "http://127.0.0.1:{upstream}"
        api_key = "sk-up-0123456789"
        [[providers]]
        name = "messages"
        kind = "anthropic"
        base_url = "http://127.0.0.1:{upstream}"
        api_key = "sk-up-0123456789"
    """)
    return [sys.executable, "-m", "proxy", "serve", "--config", str(file)]


@target
def relay(port: int, upstream: int, directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.bench.relay", str(port), str(upstream)]


@target
def nginx(port: int, upstream: int, directory: Path) -> list[str]:
    """One worker that buffers nothing."""
    temporary = "".join(f"{kind}_temp_path {directory}/{kind}; " for kind in ("fastcgi", "uwsgi", "scgi", "proxy"))
    file = directory / "nginx.conf"
    file.write_text(f"""
        daemon off; worker_processes 1; worker_rlimit_nofile 8192; pid {directory}/pid; error_log {directory}/errors;
        {"user root;" if os.geteuid() == 0 else ""}
        events {{ worker_connections 4096; }}
        http {{
            access_log off; tcp_nodelay on; keepalive_requests 10000000; client_max_body_size 64m;
            client_body_temp_path {directory}/client; {temporary}
            upstream up {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 10000000; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{
                    proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_buffering off; proxy_request_buffering off;
                }}
            }}
        }}
    """)
    return ["nginx", "-c", str(file), "-p", str(directory), "-e", f"{directory}/errors"]


@target
def envoy(port: int, upstream: int, directory: Path) -> list[str]:
    """One worker thread, and no limit that a bench could meet."""
    file = directory / "envoy.json"
    file.write_text(json.dumps(envoy_bootstrap(port, upstream), indent=1))
    # A base id of its own, because two instances may not share one.
    only = ["--concurrency", "1", "--disable-hot-restart", "--base-id", str(port)]
    return ["envoy", "-c", str(file), "-l", "error", *only]


def envoy_bootstrap(port: int, upstream: int) -> dict[str, Any]:
    api = "type.googleapis.com/envoy.extensions"

    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    everything = {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}
    manager = {
        "@type": f"{api}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [everything]}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{api}.filters.http.router.v3.Router"}}
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    most = {"max_connections": 20_000, "max_pending_requests": 20_000, "max_requests": 20_000}
    cluster = {
        "name": "up",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {
            "cluster_name": "up",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
        },
    }
    listener = {"address": address(port), "tcp_backlog_size": 4096, "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


#: What is measured where it is installed.
INSTALLED = ("nginx", "envoy")


def available() -> list[str]:
    return [name for name in TARGETS if name not in INSTALLED or shutil.which(name)]


class Running(Process):
    """A target that has given its first answer, ``started`` seconds after it was started."""

    def __init__(
        self, name: str, upstream: int, directory: Path, *, profile: Path | None = None, tree: Path = ROOT
    ) -> None:
        """The rest is for the gateway.

        ``profile``: the file that its profile will be in, once it has been told to leave.  ``tree``: whose code runs.
        """
        self.name = name
        self.tree = tree
        self.port = free_port()
        directory.mkdir()
        began = time.monotonic()
        argv = TARGETS[name](self.port, upstream, directory)
        if profile:
            argv = [sys.executable, "-m", "tests.bench.profiled", str(profile), *argv[argv.index("serve") :]]
        super().__init__(argv, TARGET_CPUS, **self._surroundings())
        self.started = self._first_answer() - began

    def _surroundings(self) -> dict[str, Any]:
        # The path comes before what is installed, and equal hashes make for equal dictionaries.
        return {"cwd": self.tree, "env": {**os.environ, "PYTHONPATH": str(self.tree), "PYTHONHASHSEED": "0"}}

    def leave(self) -> None:
        """An orderly end, for what is written then."""
        self.child.terminate()
        self.child.wait(timeout=20)

    def _first_answer(self) -> float:
        request, end, said = Task(self.port).request(), time.monotonic() + 20, b""
        while time.monotonic() < end and self.child.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                    sock.sendall(request)
                    said = sock.recv(65536)
                if b" 200 " in said[:15]:
                    return time.monotonic()
            except OSError:
                pass
            time.sleep(0.002)
        self.stop()
        raise SystemExit(f"{self.name} does not answer: {said[:300]!r}\n{self._complaint()}")

    def _complaint(self) -> str:
        """Start it once more, only to hear what it says."""
        try:
            done = subprocess.run(
                self.argv, capture_output=True, text=True, timeout=3, check=False, **self._surroundings()
            )
        except subprocess.TimeoutExpired as exc:
            return f"{exc.stderr or exc.stdout or b''!r}"
        return str(done.stderr or done.stdout)[-2000:]
