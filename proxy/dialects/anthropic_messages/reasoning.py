"""How much to think, as each generation of models wants to be told.

Claude models up to 4.5 are given a budget of tokens.  From 4.6 on they decide for themselves
(`adaptive`) and are given an effort; from 4.7 on they refuse budgets, and temperature and its kin.
Other makers' models behind this dialect know `enabled` with a budget, and `disabled`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxy.requests import Choice, Role, Thinking, marked

if TYPE_CHECKING:
    from proxy.requests import Request, Turn

_NAME = re.compile(r"claude-(?:[a-z]+-)*(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_NEWEST = (99, 0)  # a Claude whose name has no number

#: Effort → tokens, for models that are told in tokens.
BUDGET: dict[str, int] = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}
#: Effort → this dialect's word.
EFFORT: dict[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_SMALLEST = 1024


@dataclass(slots=True)
class Plan:
    """What to send: `thinking`, `output_config.effort`, and `max_tokens`, which thoughts count against.

    ``samples``: temperature and its kin may be sent.  ``dropped``: thinking was wanted and is not possible.
    """

    thinking: dict[str, Any] | None
    effort: str
    max_tokens: int
    samples: bool
    dropped: bool = False


def version(model: str) -> tuple[int, int] | None:
    """Read a Claude model's version from its name; None for other makers' models."""
    if found := _NAME.search(model):
        return int(found[1]), int(found[2] or 0)
    return _NEWEST if "claude" in model else None


def plan(request: Request, model: str, default_max_tokens: int) -> Plan:
    """Decide how a model is told to think."""
    wanted, known = request.reasoning, version(model)
    limit = default_max_tokens if request.max_tokens is None else request.max_tokens
    samples = known is None or known < (4, 7)
    if wanted is None:
        return Plan(None, "", limit, samples)
    adaptive = known is not None and known >= (4, 6)
    forced = request.tool_choice is not None and request.tool_choice.mode in (Choice.REQUIRED, Choice.NAMED)
    if wanted.budget == 0 or wanted.effort == "none":
        # Some models cannot stop to think, and refuse to be told so; all may leave out `thinking`.
        thinking = {"type": "disabled"} if known is None else None
        return Plan(thinking, "low" if adaptive else "", limit, samples)
    if adaptive:
        thinking = {"type": "adaptive"} if not forced else None
        if thinking is not None and wanted.shown is not None:
            thinking["display"] = "summarized" if wanted.shown else "omitted"
        return Plan(thinking, _effort(wanted.effort, wanted.budget, known), limit, samples and not thinking, forced)

    budget = wanted.budget if wanted.budget and wanted.budget > 0 else BUDGET.get(wanted.effort, BUDGET["medium"])
    budget = max(budget, _SMALLEST)
    if request.max_tokens is None:
        limit += budget
    elif budget >= limit:
        budget = limit * 3 // 4
    if forced or budget < _SMALLEST or _unsigned(request.turns):
        limit = default_max_tokens if request.max_tokens is None else request.max_tokens
        return Plan(None, "", limit, samples, dropped=True)
    return Plan({"type": "enabled", "budget_tokens": budget}, "", limit, samples=False)


def _effort(effort: str, budget: int | None, known: tuple[int, int] | None) -> str:
    if not effort and budget is not None and budget > 0:
        effort = next((word for word, tokens in BUDGET.items() if budget <= tokens), "xhigh")
    word = EFFORT.get(effort, "")
    return "high" if word == "xhigh" and known == (4, 6) else word


def _unsigned(turns: tuple[Turn, ...]) -> bool:
    """Do the turns end in tool results for calls whose thoughts were not sent back?

    Given a budget, models refuse to go on from there: the thoughts must lead the assistant's part.
    """
    spoken = [turn for turn in turns if turn.role is not Role.SYSTEM]
    if spoken and spoken[-1].role is Role.USER:
        spoken.pop()  # said beside the results
    if not spoken or spoken[-1].role is not Role.TOOL:
        return False
    first = None
    for turn in reversed(spoken):
        if turn.role is Role.USER:
            break
        if turn.role is Role.ASSISTANT:
            first = turn
    lead = first.parts[0] if first and first.parts else None
    seal = lead.signature or lead.redacted if isinstance(lead, Thinking) else ""
    return not seal or marked(seal)
