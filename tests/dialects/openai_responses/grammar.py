"""What a response's stream has to look like for its strictest client."""

from __future__ import annotations

import json
from typing import Any

#: Fields of a response object that clients count on.
FIELDS = {
    *(
        "id",
        "object",
        "created_at",
        "status",
        "completed_at",
        "error",
        "incomplete_details",
        "model",
        "output",
        "usage",
    ),
    *("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "previous_response_id", "reasoning"),
    *("store", "temperature", "text", "tool_choice", "tools", "top_p", "truncation", "user", "background"),
}
#: Delta → the event that tells the text whole, and its field.
WHOLE = {
    "response.output_text.delta": ("response.output_text.done", "text"),
    "response.refusal.delta": ("response.refusal.done", "refusal"),
    "response.reasoning_summary_text.delta": ("response.reasoning_summary_text.done", "text"),
    "response.function_call_arguments.delta": ("response.function_call_arguments.done", "arguments"),
    "response.custom_tool_call_input.delta": ("response.custom_tool_call_input.done", "input"),
}
#: Kind of item → its deltas, and the field of the item or part in which the whole text stands again.
DELTAS = {
    "message": {"response.output_text.delta": "text", "response.refusal.delta": "refusal"},
    "reasoning": {"response.reasoning_summary_text.delta": "text"},
    "function_call": {"response.function_call_arguments.delta": "arguments"},
    "custom_tool_call": {"response.custom_tool_call_input.delta": "input"},
}
#: Kind of item → its events about parts, what numbers them, and where they stand in the item.
PARTS = {
    "message": ("response.content_part", "content_index", "content"),
    "reasoning": ("response.reasoning_summary_part", "summary_index", "summary"),
}
STATUSES = {"response.completed": "completed", "response.incomplete": "incomplete"}


def check(frames: bytes) -> None:
    """Raise ``AssertionError`` with a sentence where the stream is not well formed."""
    assert b"[DONE]" not in frames, "there is no [DONE] in this dialect"
    assert frames.endswith(b"\n\n"), "the last frame is not whole"
    raws = [raw for raw in frames[:-2].split(b"\n\n") if not raw.startswith(b":")]
    told = [_frame(raw) for raw in raws]
    numbers = [data["sequence_number"] for data in told]
    assert numbers == list(range(len(told))), f"sequence numbers have gaps: {numbers}"
    if told[-1]["type"] == "response.failed":
        _fault(told)
        if not told:
            return
        _started(told)
        _Output(told[0]["response"]["id"]).read(told[2:])
        return
    _started(told)
    last = told[-1]
    assert last["type"] in STATUSES, f"the stream ends with {last['type']}"
    output = _Output(told[0]["response"]["id"])
    output.read(told[2:-1])
    assert output.item is None, "the response ended inside an item"
    _ended(last, output.items, told[0]["response"])


def _frame(raw: bytes) -> dict[str, Any]:
    lines = raw.split(b"\n")
    assert len(lines) == 2, f"a frame is an event line and a data line, not {raw!r}"
    assert lines[0].startswith(b"event: "), f"no event line in {raw!r}"
    assert lines[1].startswith(b"data: "), f"no data line in {raw!r}"
    data = json.loads(lines[1][6:])
    assert data["type"] == lines[0][7:].decode(), f"the event line contradicts the type in {raw!r}"
    return data


def _fault(told: list[dict[str, Any]]) -> None:
    """Take the two frames of a fault off the end."""
    failed = told.pop()
    assert told, "response.failed without an error before it: official clients do not raise"
    error = told.pop()
    assert error["type"] == "error", f"{error['type']} before response.failed"
    assert error["message"], "an error has a message"
    assert error["message"] == error["error"]["message"], "an error says two things"
    assert isinstance(error["code"], str), "the AI SDK wants a code"
    assert isinstance(error["error"]["type"], str), "the AI SDK wants a type"
    response = failed["response"]
    assert response["status"] == "failed", "a failed response says so"
    assert response["error"] == {"code": error["code"], "message": error["message"]}, "the faults differ"
    if told:
        assert response["id"] == told[0]["response"]["id"], "another response failed"


def _started(told: list[dict[str, Any]]) -> None:
    assert len(told) >= 2, "a stream begins with two events"
    for data, kind in zip(told, ("response.created", "response.in_progress"), strict=False):
        assert data["type"] == kind, f"{data['type']} in the place of {kind}"
        response = data["response"]
        assert response.keys() >= FIELDS, f"the response lacks {FIELDS - response.keys()}"
        assert response["status"] == "in_progress", "a response begins in progress"
        assert response["output"] == [], "the output begins empty"
        assert response["usage"] is None, "nobody knows the cost yet"
        assert response["id"].startswith("resp_"), f"{response['id']} is no id of a response"


def _ended(last: dict[str, Any], items: list[dict[str, Any]], first: dict[str, Any]) -> None:
    response = last["response"]
    assert response.keys() >= FIELDS, f"the response lacks {FIELDS - response.keys()}"
    assert response["status"] == STATUSES[last["type"]], "the status contradicts the event"
    assert response["output"] == items, "the output is not what was told"
    assert (response["status"] == "incomplete") == bool(response["incomplete_details"]), "why is it incomplete?"
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], "the sum is wrong"
    assert {"cached_tokens", "cache_write_tokens"} <= usage["input_tokens_details"].keys(), "details are missing"
    assert "reasoning_tokens" in usage["output_tokens_details"], "details are missing"
    changing = {"status", "output", "usage", "completed_at", "incomplete_details"}
    for name in first.keys() - changing:
        assert response[name] == first[name], f"{name} has changed"
    assert response["store"] is False, "nothing is stored"


class _Output:
    """The items between the start and the end."""

    def __init__(self, response: str) -> None:
        self.items: list[dict[str, Any]] = []
        self.item: dict[str, Any] | None = None
        self.text: list[str] | None = None  # of the open part
        self.delta = ""  # the kind of its deltas
        self.whole: str | None = None  # as the part's end told it
        self.part: dict[str, Any] | None = None
        self.annotations: list[dict[str, Any]] = []
        self.parts: list[dict[str, Any]] = []
        self.ids = {response}

    def read(self, told: list[dict[str, Any]]) -> None:
        for data in told:
            kind = data["type"]
            if kind == "response.output_item.added":
                self.added(data)
                continue
            assert self.item is not None, f"{kind} outside of an item"
            assert data["output_index"] == len(self.items), f"{kind} for another item"
            if kind == "response.output_item.done":
                self.done(data["item"])
                continue
            assert data["item_id"] == self.item["id"], f"{kind} for another item"
            named, number, _ = PARTS.get(self.item["type"], ("", "", ""))
            if number:
                assert data[number] == len(self.parts), f"{kind} for another part"
            if named and kind == f"{named}.added":
                self.part_added(data["part"])
            elif named and kind == f"{named}.done":
                self.part_done(data["part"])
            elif kind in DELTAS[self.item["type"]]:
                self.said(kind, data)
            elif kind == "response.output_text.annotation.added":
                assert data["annotation_index"] == len(self.annotations), "annotations are numbered"
                self.annotations.append(data["annotation"])
            else:
                self.told_whole(kind, data)

    def added(self, data: dict[str, Any]) -> None:
        item = data["item"]
        assert self.item is None, "an item began inside another"
        assert data["output_index"] == len(self.items), "items are numbered"
        assert item["type"] in DELTAS, f"there are no items of type {item['type']}"
        assert item["id"] not in self.ids, "ids are unique"
        self.ids.add(item["id"])
        empty = {"message": "content", "reasoning": "summary", "function_call": "arguments"}
        assert not item[empty.get(item["type"], "input")], "an item begins empty"
        assert item.get("status", "in_progress") == "in_progress", "an item begins in progress"
        if "call_id" in item:
            assert item["call_id"] != item["id"], "an item's id is not its call's"
        self.item, self.parts, self.part, self.text, self.whole = item, [], None, None, None
        if item["type"] not in PARTS:
            self.text, self.delta = [], next(iter(DELTAS[item["type"]]))

    def part_added(self, part: dict[str, Any]) -> None:
        assert self.part is None, "a part began inside another"
        self.part, self.text, self.whole, self.annotations = part, [], None, []
        self.delta = {"refusal": "response.refusal.delta", "output_text": "response.output_text.delta"}.get(
            part["type"], "response.reasoning_summary_text.delta"
        )

    def said(self, kind: str, data: dict[str, Any]) -> None:
        assert self.text is not None, f"{kind} outside of a part"
        assert self.whole is None, f"{kind} after the text was told whole"
        assert kind == self.delta, f"{kind} in a part of another kind"
        assert data["delta"], "an empty delta"
        assert kind != "response.output_text.delta" or data["logprobs"] == [], "text has logprobs"
        self.text.append(data["delta"])

    def told_whole(self, kind: str, data: dict[str, Any]) -> None:
        expected, field = WHOLE[self.delta]
        assert kind == expected, f"{kind} has no place here"
        assert self.text is not None, f"{kind} outside of a part"
        assert self.whole is None, "the text was told whole twice"
        self.whole = data[field]
        assert self.whole == "".join(self.text), "the whole is not the sum of its deltas"
        if kind == "response.function_call_arguments.done":
            assert self.item is not None
            assert data["name"] == self.item["name"], "the newest clients want the function's name"

    def part_done(self, part: dict[str, Any]) -> None:
        assert self.part is not None, "a part ended that had not begun"
        assert self.item is not None
        assert part["type"] == self.part["type"], "a part changed its type"
        assert part[DELTAS[self.item["type"]][self.delta]] == self.whole, "the part is not what was told"
        assert part.get("annotations", []) == self.annotations, "its annotations are not what was told"
        self.parts.append(part)
        self.part = self.text = None

    def done(self, item: dict[str, Any]) -> None:
        assert self.item is not None
        assert self.part is None, "an item ended inside a part"
        for name in ("id", "type", "call_id", "name", "role", "namespace"):
            assert item.get(name) == self.item.get(name), f"an item changed its {name}"
        assert item.get("status", "completed") in ("completed", "incomplete"), "an item ended in progress"
        if item["type"] in PARTS:
            assert item[PARTS[item["type"]][2]] == self.parts, "an item has other parts than were told"
        else:
            assert self.whole is not None, "a call ended before its arguments did"
            assert item[DELTAS[item["type"]][self.delta]] == self.whole, "a call has other arguments than were told"
        self.items.append(item)
        self.item = None
