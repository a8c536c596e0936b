"""The dialects that clients speak, as tests ask for a stream and read what it says; and what was counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from . import Gateway
    from .wire import Answer, Frame


class Fault(NamedTuple):
    """An error frame: ``kind`` is a word of the error table (OpenAI has it as ``code``)."""

    kind: str
    message: str


@dataclass(frozen=True)
class Speaker:
    """A client of one dialect."""

    path: str

    async def ask(self, gateway: Gateway, **fields: Any) -> Answer:
        """Ask for a stream; returns when the answer's head is in."""
        return await gateway.chat(path=self.path, **{"stream": True, **fields})

    def text(self, frame: Frame) -> str:
        """What a frame says; "" if it says nothing."""
        raise NotImplementedError

    def ends(self, frame: Frame) -> bool:
        """Does this frame end a good answer?"""
        raise NotImplementedError

    def fault(self, frame: Frame) -> Fault | None:
        raise NotImplementedError

    def error(self, body: Any) -> Fault:
        """The fault in a whole answer, or in a frame, that is nothing else."""
        raise NotImplementedError

    async def heard(self, answer: Answer) -> Heard:
        """Read all that is left of a stream."""
        frames = await answer.events()
        faults = [fault for frame in frames if (fault := self.fault(frame))]
        return Heard(
            "".join(self.text(frame) for frame in frames),
            bool(frames) and self.ends(frames[-1]),
            faults[0] if faults else None,
            answer.whole and not answer.unfinished,
            frames,
        )


class Heard(NamedTuple):
    """What was left of a stream.

    Its text, whether it ended as good answers do, what went wrong, whether HTTP was whole, the frames themselves.
    """

    text: str
    complete: bool
    fault: Fault | None
    whole: bool
    frames: list[Frame]


class OpenAI(Speaker):
    def text(self, frame: Frame) -> str:
        return frame.content or ""

    def ends(self, frame: Frame) -> bool:
        return frame.done

    def fault(self, frame: Frame) -> Fault | None:
        return None if frame.done or not frame.json.get("error") else self.error(frame.json)

    def error(self, body: Any) -> Fault:
        return Fault(body["error"]["code"], body["error"]["message"])


class Simple(Speaker):
    def text(self, frame: Frame) -> str:
        return frame.json.get("delta", "")

    def ends(self, frame: Frame) -> bool:
        return frame.json.get("done") is True

    def fault(self, frame: Frame) -> Fault | None:
        return self.error(frame.json) if "error" in frame.json else None

    def error(self, body: Any) -> Fault:
        return Fault(body["error"], body["details"])


OPENAI = OpenAI("/v1/chat/completions")
SIMPLE = Simple("/api/chat")

speakers = pytest.mark.parametrize("speaker", [pytest.param(OPENAI, id="openai"), pytest.param(SIMPLE, id="simple")])
#: For tables that are long and not about dialects: each way through the gateway once.
forms = pytest.mark.parametrize(
    ("speaker", "streamed"),
    [pytest.param(OPENAI, True, id="openai-streamed"), pytest.param(SIMPLE, False, id="simple-whole")],
)


# What was counted


def counted(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of a metric over all series with these labels; 0 where there is none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(gateway.server.gateway.metrics.text().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def settled(gateway: Gateway, **labels: str) -> float:
    """How many requests were settled with these labels, once none is in flight."""
    await gateway.idle()
    return counted(gateway, "ai_proxy_requests_total", **labels)


def open_streams(gateway: Gateway) -> float:
    """What the gauge of exchanges in flight says."""
    return counted(gateway, "ai_proxy_open_streams")
