"""The command line: what there is to say, and what is wrong with what was said, in one line.

Each command is imported when it is asked for: making a key must not wait for a web server's modules.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from proxy import __version__
from proxy.commands import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # what shells expect after Ctrl-C
NOBODY_READS = 141  # and after a pipe whose reader left


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (it did not work) or 2 (what was asked, or the configuration)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 is no reason to fail
    args = parser().parse_args(argv)
    try:
        code: int = importlib.import_module(f"proxy.commands.{args.command}").run(args)
        sys.stdout.flush()
    except Failure as exc:
        print(f"ai-proxy: {exc}" if exc.prefixed else exc, file=sys.stderr)
        return exc.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `ai-proxy models | head`.  Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    return code


class Parser(argparse.ArgumentParser):
    """Mistakes are one line, as everywhere; the rest is a --help away."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help says more)\n")


def parser() -> argparse.ArgumentParser:
    program = Parser(
        prog="ai-proxy",
        description="A streaming gateway between OpenAI-compatible clients and language-model providers.",
        epilog="Exit codes: 0 it worked, 1 it did not, 2 the configuration or the command line is wrong.",
    )
    program.add_argument("--version", action="version", version=f"ai-proxy {__version__}")
    commands = program.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _serve(commands)
    _check(commands)
    _key(commands)
    _models(commands)
    _chat(commands)
    return program


Commands = Any  # argparse does not name the type of what add_subparsers returns


def _serve(commands: Commands) -> None:
    command = _command(
        commands,
        "serve",
        "run the gateway",
        """
        Serve the models of the configuration until SIGTERM, which lets live streams finish.  SIGHUP reads the file
        again, between two requests.
        """,
        "ai-proxy serve",
        "ai-proxy serve --config /etc/ai-proxy/config.toml --port 9000",
    )
    _config(command)
    command.add_argument("--host", help="address to listen on, instead of server.host")
    command.add_argument("--port", type=int, help="port to listen on, instead of server.port; 0 = any that is free")
    command.add_argument("--workers", type=int, metavar="N", help="processes, instead of server.workers")


def _check(commands: Commands) -> None:
    command = _command(
        commands,
        "check",
        "validate the configuration and say what it would serve",
        """
        Read the configuration as `serve` would, and print what would be served: providers, models, keys by name,
        limits.  No secret is printed.
        """,
        "ai-proxy check",
        "ai-proxy check --config new.toml --live && kill -HUP $PID",
    )
    _config(command)
    command.add_argument(
        "--live", action="store_true", help="also ask every provider that is on for its models, and time the answer"
    )


def _key(commands: Commands) -> None:
    command = _command(
        commands,
        "key",
        "make a key for a client",
        "Make random keys.  The gateway needs to know their digest only.",
        "ai-proxy key new laptop",
    )
    verbs = command.add_subparsers(dest="verb", metavar="new", required=True)
    new = _command(
        verbs,
        "new",
        "print a new key, and the table for it",
        "Print a new random key, this once, and the [[keys]] table to paste into the configuration.",
        "ai-proxy key new laptop",
    )
    new.add_argument("name", metavar="NAME", help="whose key it is; appears in logs and metrics")


def _models(commands: Commands) -> None:
    command = _command(
        commands,
        "models",
        "list the models that a running gateway serves",
        "Ask a running gateway for the models that this key may use.",
        "ai-proxy models",
        "ai-proxy models --url https://ai.example.org",
    )
    _gateway(command)


def _chat(commands: Commands) -> None:
    command = _command(
        commands,
        "chat",
        "stream an answer to the terminal",
        """
        Ask a model through a running gateway and print the answer as it arrives; then, on stderr, the time to the
        first token, tokens per second and usage.
        """,
        'ai-proxy chat "Why is the sky blue?"',
        "ai-proxy chat --model deepseek-chat - < question.txt",
        "git diff | ai-proxy chat --url https://ai.example.org",
    )
    _gateway(command)
    command.add_argument("--model", help="model or alias; left out: the gateway's default")
    command.add_argument("prompt", metavar="PROMPT", nargs="*", help="the question; - or none: what stdin says")


def _command(commands: Commands, name: str, does: str, description: str, *examples: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=does,
        description=textwrap.fill(" ".join(description.split()), 80),
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return command


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, default=Path("config.toml"), metavar="FILE", help="configuration (default: config.toml)"
    )


def _gateway(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--url",
        default=os.environ.get("AI_PROXY_URL") or "http://127.0.0.1:8080",
        help="where the gateway is (default: $AI_PROXY_URL, or http://127.0.0.1:8080)",
    )
    command.add_argument(
        "--key",
        default=os.environ.get("AI_PROXY_KEY", ""),
        help="key for the gateway (default: $AI_PROXY_KEY, which other users of this machine cannot see)",
    )
