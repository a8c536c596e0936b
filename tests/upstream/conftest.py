"""A pool for each test, which must be able to close in the middle of everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.upstream import Upstream as Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.functional.upstream import Upstream


@pytest.fixture
async def pool(upstream: Upstream) -> AsyncIterator[Pool]:
    made = Pool()
    yield made
    await made.close()
    await upstream.quiet()
