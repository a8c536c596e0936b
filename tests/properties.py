"""How hard properties are tried, and what they are tried with: ``PROPERTY_EXAMPLES=5000`` tries harder."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: No deadline: a busy machine is not a bug.
thorough = settings(
    max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

#: Any JSON value.
json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 600) | st.floats(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
