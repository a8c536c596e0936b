"""What the log says of exceptions that nobody caught."""

import errno
import logging

import pytest

from proxy.faults import KNOWN, PAUSE, Faults


class Clock:
    """Stands for an event loop, of which only the time is asked."""

    now = 5.0

    def time(self):
        return self.now


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.ERROR, "proxy.faults")
    return lambda: [record.getMessage() for record in caplog.records]


def raised(exc):
    try:
        raise exc
    except type(exc) as caught:
        return caught


def test_neither_a_callback_nor_an_exception_repeats_what_a_client_said(told):
    Faults()(Clock(), {
        "message": "Exception in callback <bound method Connection.data_received of ...>(b'Bearer sk-secret')",
        "exception": raised(ValueError("invalid literal: 'sk-secret'")),
    })  # fmt: skip
    (line,) = told()
    assert "sk-secret" not in line
    assert line.startswith("event loop: Exception: ValueError at test_faults.py:")


def test_a_storm_is_one_line_in_ten_seconds_and_then_its_size(told):
    clock, faults = Clock(), Faults()
    full = {
        "message": "socket.accept() out of system resource",
        "exception": raised(OSError(errno.EMFILE, "Too many open files")),
    }
    for _ in range(1000):
        faults(clock, full)
    assert len(told()) == 1
    assert told()[0].endswith("(Too many open files)")
    clock.now += PAUSE
    faults(clock, full)
    assert told()[1].endswith("(Too many open files) (999 times more since it was last told)")


def test_another_fault_does_not_wait_for_the_first(told):
    clock, faults = Clock(), Faults()
    faults(clock, {"message": "Task was destroyed but it is pending!"})
    faults(clock, {"message": "Fatal read error on socket transport"})
    faults(clock, {})
    assert told() == [
        "event loop: Task was destroyed but it is pending!",
        "event loop: Fatal read error on socket transport",
        "event loop: fault",
    ]


def test_what_is_remembered_has_a_bound(told):
    clock, faults = Clock(), Faults()
    for number in range(10 * KNOWN):
        faults(clock, {"message": f"fault {number}"})
    assert len(faults._told) <= KNOWN
