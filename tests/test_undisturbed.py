from __future__ import annotations

import signal
import threading

import pytest

from nas.undisturbed import undisturbed


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_for_the_end_of_the_block():
    done = []

    @undisturbed()
    def inner():
        interrupt()
        done.append("inner")

    @undisturbed()
    def outer():
        inner()
        done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        outer()
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_interrupts_what_does_not_end():
    done = []

    @undisturbed()
    def work():
        interrupt()
        done.append("after one")
        interrupt()
        done.append("after two")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["after one"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_ones_own_is_told_every_signal_after_the_block():
    told = []
    before = signal.signal(signal.SIGINT, lambda number, frame: told.append(number))
    try:
        with undisturbed():
            interrupt()
            interrupt()
            assert told == []
    finally:
        signal.signal(signal.SIGINT, before)
    assert told == [signal.SIGINT, signal.SIGINT]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_python_does_not_handle_is_left_alone(handler):
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with undisturbed():
            assert signal.getsignal(signal.SIGTERM) == handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_changes_no_handler():
    found = []

    def work():
        with undisturbed():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_an_error_passes_and_the_handlers_are_back():
    with pytest.raises(ZeroDivisionError), undisturbed():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
