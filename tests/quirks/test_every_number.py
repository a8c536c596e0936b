"""The list is complete."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_quirk_has_a_test_that_bears_its_number():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_[0-9]*.py"))
    numbers = {int(number) for number in re.findall(r"^(?:async )?def test_(\d\d)_\w+\(", text, re.MULTILINE)}
    assert numbers == set(range(1, 41))
