"""The gate tells a commit that made things dearer from one that did not; how dear they are is for people to judge."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.gate import SCALES, Comparison, Incomparable, compare, git, table, unpack, usual_base
from tests.bench.targets import ROOT

SCENARIO = SCALES["full"].scenarios()[0]

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout")


@pytest.mark.slow
@needs_git
def test_a_commit_and_the_working_tree_are_compared_in_every_scenario():
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.gate", "--micro", "--base", "HEAD", "--bound", "100000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for scenario in SCALES["micro"].scenarios():
        assert scenario.what in done.stdout
    assert "head: the working tree" in done.stdout


@pytest.mark.parametrize(
    ("ratios", "lost"),
    [
        pytest.param([1.0, 1.0, 1.0], False, id="the-same"),
        pytest.param([0.5, 0.6, 0.5], False, id="cheaper"),
        pytest.param([1.09, 1.09, 1.09], False, id="dearer-within-the-bound"),
        pytest.param([1.11, 1.12, 1.13], True, id="dearer"),
        pytest.param([1.0, 9.0, 1.0], False, id="one-bad-moment"),
        pytest.param([1.2, 0.1, 1.2], True, id="one-good-moment"),
    ],
)
def test_the_median_decides(ratios, lost):
    comparison = Comparison(SCENARIO, [100.0] * len(ratios), [100 * ratio for ratio in ratios])
    assert comparison.lost(0.1) == lost
    assert ("LOST" in table([comparison], 0.1)) == lost
    low, high = comparison.spread
    assert low <= comparison.ratio <= high


def test_a_bound_of_ones_own_is_kept_to():
    comparison = Comparison(SCENARIO, [100.0], [104.0])
    assert comparison.lost(0.03)
    assert not comparison.lost(0.05)


@needs_git
def test_a_commit_is_unpacked_beside_the_checkout(tmp_path):
    side = unpack("HEAD", tmp_path / "base")
    assert (side.tree / "proxy" / "__init__.py").read_bytes() == git("show", "HEAD:proxy/__init__.py")
    assert side.requirements == {
        line.strip()
        for line in git("show", "HEAD:setup.cfg").decode().split("install_requires =")[1].split("\n\n")[0].split("\n")
    } - {""}


def test_the_working_tree_is_copied_as_it_is(tmp_path):
    side = unpack("", tmp_path / "head")
    assert (side.tree / "proxy" / "__init__.py").read_bytes() == (ROOT / "proxy" / "__init__.py").read_bytes()
    assert not list(side.tree.rglob("__pycache__"))


@needs_git
@pytest.mark.parametrize("rev", ["no-such-commit", "--all"])
def test_what_is_no_commit_is_said_in_words(tmp_path, rev):
    with pytest.raises(Incomparable, match=rev):
        compare(rev, "", SCALES["micro"], 0.1)


@needs_git
def test_without_a_tag_the_base_is_the_commit_before(monkeypatch):
    def git_without_tags(*arguments: str) -> bytes:
        raise Incomparable("No names found")

    monkeypatch.setattr("tests.bench.gate.git", git_without_tags)
    assert usual_base("") == "HEAD~1"
    assert usual_base("main") == "main~1"
