"""What Cloudflare says when it says no: `errors` beside `success: false`, also beside a status of 200.

https://developers.cloudflare.com/workers-ai/platform/errors/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxy.refusals import Scrub, read_refusal, refused

if TYPE_CHECKING:
    from proxy.errors import GatewayError

#: Cloudflare's codes → the status that they have where the status says it.
STATUS: dict[str, int] = {
    "3003": 400,
    "3006": 413,
    "3007": 408,
    "3008": 408,
    "3023": 403,
    "3036": 429,
    "3039": 400,
    "3040": 429,
    "3041": 403,
    "3042": 404,
    "4006": 429,
    "5004": 400,
    "5005": 400,
    "5006": 400,
    "5007": 400,
    "5016": 403,
    "5018": 403,
    "5035": 403,
    "7000": 400,
    "10000": 401,
}
_IN_TEXT = re.compile(r"AiError: (\d{4,5})\b")


def refusal_of(body: object, scrub: Scrub) -> GatewayError:
    """Read a refusal that has no status of its own."""
    refusal = read_refusal(body)
    code = refusal.code or ""
    if code not in STATUS and (named := _IN_TEXT.search(refusal.message)):
        code = named[1]
    return refused(refusal.status or STATUS.get(code, 0), refusal, scrub)
