"""Everything that can go wrong, said once; each dialect has its own words for it.

GatewayError
├── InvalidRequest           400, 415   the client's request cannot be served as it is
├── Unauthorized             401        no key, or a key we do not know
├── Forbidden                403        a known key that may not do this
├── NotFound                 404        no such path or model
│   └── MethodNotAllowed     405
├── PayloadTooLarge          413
├── RateLimited              429        our limits, not the provider's
├── InternalError            500        our mistake: the client hears its request id, nothing else
├── UpstreamError            502        the request was fine; the other side was not
│   └── UpstreamRefused      as theirs  400, 404, 413, 422 and 429 keep status and message
├── Overloaded               503        full, draining, or every deployment resting
└── TimedOut                 504        one of our clocks, named
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil
from typing import ClassVar


class Kind(StrEnum):
    """What happened, in the words of the simple error form."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    RATE_LIMITED = "rate_limited"
    INTERNAL_ERROR = "internal_error"
    UPSTREAM_ERROR = "upstream_error"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"


class Maker(StrEnum):
    """Whose words a provider says no in: they mean something to clients of the same dialect only."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    CLOUDFLARE = "cloudflare"


class GatewayError(Exception):
    """A fault with everything a client may be told about it.

    ``message`` is a sentence for people.  ``param`` names the offending request field,
    ``code`` is a machine-readable word where the kind alone does not say enough.
    ``headers`` go out with the answer when the fault is told before its head.
    """

    kind: Kind = Kind.INTERNAL_ERROR
    status: int = 500
    #: Would another deployment have a chance?  Routing asks; nobody else does.
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}
        #: What the log may say: our own words, never a client's or a provider's.
        self.reason = ""
        if status is not None:
            self.status = status


class InvalidRequest(GatewayError):
    """The request cannot be served as it is; the message says what to mend."""

    kind = Kind.INVALID_REQUEST
    status = 400


class Unauthorized(GatewayError):
    """No credential, an unknown one, or an expired one."""

    kind = Kind.UNAUTHORIZED
    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class Forbidden(GatewayError):
    """Known who asks, and still no."""

    kind = Kind.FORBIDDEN
    status = 403


class NotFound(GatewayError):
    """No such path, or no such model."""

    kind = Kind.NOT_FOUND
    status = 404


class MethodNotAllowed(NotFound):
    """A known path, asked with a method that it does not have."""

    status = 405

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        allow = ", ".join(allowed)
        super().__init__(f"{path} does not take {method}; it takes {allow}", headers={"Allow": allow})


class PayloadTooLarge(GatewayError):
    """The body is larger than the configuration allows."""

    kind = Kind.PAYLOAD_TOO_LARGE
    status = 413

    def __init__(self, limit: int, setting: str) -> None:
        super().__init__(f"the request body is larger than {limit} bytes ({setting})", code="payload_too_large")


class RateLimited(GatewayError):
    """A limit of this gateway, not of a provider; ``retry_after`` is in seconds."""

    kind = Kind.RATE_LIMITED
    status = 429

    def __init__(self, message: str, *, retry_after: float, headers: dict[str, str] | None = None) -> None:
        told = {"Retry-After": str(max(1, ceil(retry_after))), **(headers or {})}
        super().__init__(message, code="rate_limit_exceeded", headers=told)
        self.reason = message


class InternalError(GatewayError):
    """Our own mistake; the log has the rest under the same request id."""

    kind = Kind.INTERNAL_ERROR
    status = 500

    def __init__(self, request_id: str) -> None:
        super().__init__(f"internal error; request id {request_id}", code="internal_error")


class UpstreamError(GatewayError):
    """The request was fine; the other side was not.

    ``type`` is the provider's own word for the fault, where it has one, and ``maker`` says whose word that is.
    """

    kind = Kind.UPSTREAM_ERROR
    status = 502
    retryable = True

    def __init__(self, message: str, *, status: int | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message, code="upstream_error", status=status, headers=headers)
        self.reason = message
        self.type: str | None = None
        self.maker = Maker.OPENAI


class UpstreamRefused(UpstreamError):
    """The provider judged the request: its status and message are passed on, and its words where they are known."""

    KEPT: ClassVar[dict[int, Kind]] = {
        400: Kind.INVALID_REQUEST,
        404: Kind.NOT_FOUND,
        413: Kind.PAYLOAD_TOO_LARGE,
        422: Kind.INVALID_REQUEST,
        429: Kind.RATE_LIMITED,
    }
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        maker: Maker = Maker.OPENAI,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, status=status, headers=headers)
        self.kind = self.KEPT[status]
        self.reason = f"the provider answered {status}"
        self.type = type
        self.param = param
        self.code = code
        self.maker = maker


class Overloaded(GatewayError):
    """No room now; ``retry_after`` is in seconds."""

    kind = Kind.OVERLOADED
    status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after: float = 1, headers: dict[str, str] | None = None) -> None:
        told = {"Retry-After": str(max(1, ceil(retry_after))), **(headers or {})}
        super().__init__(message, code="overloaded", headers=told)
        self.reason = message


class TimedOut(GatewayError):
    """One of our clocks ran out; the message names it as the configuration does."""

    kind = Kind.TIMEOUT
    status = 504
    retryable = True

    def __init__(self, clock: str, seconds: float, what: str) -> None:
        super().__init__(f"{what} for {seconds:g} s (timeouts.{clock})", code="timeout")
        self.reason = self.message
        self.clock = clock
