"""Threads beside the network: order, bounds, errors and ends."""

import threading
import time

import pytest

from ctrs.inference.prefetch import ReadAhead, WriteBehind


def names():
    return {thread.name for thread in threading.enumerate()}


def test_items_come_in_order_from_another_thread():
    def numbers():
        for number in range(50):
            yield number, threading.current_thread().name

    found = list(ReadAhead().items(numbers()))
    assert [number for number, _ in found] == list(range(50))
    assert {name for _, name in found} == {"ctrs-read-ahead"}


def test_it_runs_no_further_ahead_than_told():
    begun = []

    def numbers():
        for number in range(20):
            begun.append(number)
            yield number

    items = ReadAhead(depth=2).items(numbers())
    next(items)
    time.sleep(0.3)
    assert len(begun) <= 4  # one taken, two waiting, one in hand
    items.close()


def test_errors_of_the_reader_are_raised_after_the_items_before():
    def broken():
        yield 1
        raise ValueError("block 7")

    items = ReadAhead().items(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="block 7"):
        next(items)


def test_closing_ends_the_thread():
    items = ReadAhead().items(iter(range(1000)))
    next(items)
    items.close()
    assert "ctrs-read-ahead" not in names()


def test_the_reader_rests_while_the_network_is_at_work_and_an_item_waits():
    ahead, begun = ReadAhead(depth=5), []

    def pieces():
        for number in range(4):
            for piece in range(3):
                ahead.pause()
                begun.append((number, piece))
            yield number

    items = ahead.items(pieces())
    with ahead.network_at_work():
        # The first is made at once, since the network would wait for it; the rest, but for the taken one's, is not.
        assert next(items) == 0
        wait_until(lambda: len(begun) >= 6)
        time.sleep(0.3)
        assert begun[-1] == (1, 2)
    wait_until(lambda: len(begun) == 12)
    assert list(items) == [1, 2, 3]


def test_closing_ends_a_reader_that_rests():
    ahead = ReadAhead()

    def pieces():
        for number in range(100):
            ahead.pause()
            yield number

    items = ahead.items(pieces())
    next(items)
    with ahead.network_at_work():
        items.close()
    assert "ctrs-read-ahead" not in names()


def wait_until(holds):
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_writing_is_in_order_and_done_on_leaving():
    written = []

    def write(item):
        time.sleep(0.001)
        written.append(item)

    with WriteBehind(write) as writer:
        for number in range(30):
            writer.put(number)
    assert written == list(range(30))
    assert "ctrs-write-behind" not in names()


def write_all(function, items, error=None):
    with WriteBehind(function) as writer:
        for item in items:
            writer.put(item)
            time.sleep(0.001)
        if error is not None:
            raise error


def test_what_was_handed_over_is_written_although_the_block_fails():
    written = []
    with pytest.raises(KeyboardInterrupt):
        write_all(written.append, [1], KeyboardInterrupt())
    assert written == [1]


def test_errors_of_the_writer_are_raised():
    def full(item):
        raise OSError(f"disk full at {item}")

    with pytest.raises(OSError, match="disk full at 0"):
        write_all(full, range(100))
    with pytest.raises(OSError, match="disk full at 5"):
        write_all(full, [5])
