"""A new key: random, shown once, and known to the gateway by its digest."""

from __future__ import annotations

import hashlib
import re
import tomllib

import pytest

from proxy.cli import main
from proxy.settings import load


def test_the_printed_table_admits_the_printed_key(capsys, tmp_path):
    assert main(["key", "new", "laptop"]) == 0
    key, _, table = capsys.readouterr().out.partition("\n")
    config = tmp_path / "config.toml"
    config.write_text(table)
    (admitted,) = load(config, {}).settings.keys
    assert admitted.name == "laptop"
    assert admitted.digest == hashlib.sha256(key.encode()).digest()
    assert key not in table


def test_a_key_is_256_random_bits_behind_the_prefix(capsys):
    main(["key", "new", "a"])
    main(["key", "new", "a"])
    first, second = re.findall(r"^sk-proxy-([\w-]+)$", capsys.readouterr().out, re.MULTILINE)
    assert first != second
    assert len(first) * 6 >= 256


@pytest.mark.parametrize("name", ['the "big" one', "back\\slash", "Büro", "a#b"])
def test_names_are_written_so_that_they_read_back(capsys, name):
    main(["key", "new", name])
    table = capsys.readouterr().out.partition("\n")[2]
    assert tomllib.loads(table)["keys"][0]["name"] == name


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 65], ids=["empty", "line-break", "long"])
def test_names_that_the_configuration_would_refuse_are_refused(capsys, name):
    assert main(["key", "new", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "ai-proxy: NAME must be 1 to 64 printable characters\n"
