"""The board: what is shown does not change under a reader, and a change can be waited for."""

import threading

import pytest

from reconciler.board import Board
from tests.support.webhouse import status


def test_the_latest_status_is_shown():
    board = Board()
    assert board.get("a") is None
    board.publish(status("a", message="old"))
    board.publish(status("a", message="new"))
    board.publish(status("b"))
    assert board.get("a").message == "new"
    assert set(board.all()) == {"a", "b"}
    board.forget("a")
    assert set(board.all()) == {"b"}


def test_what_a_reader_holds_does_not_change():
    board = Board()
    board.publish(status("a"))
    held = board.all()
    board.publish(status("b"))
    assert set(held) == {"a"}
    with pytest.raises(TypeError):
        held["c"] = status("c")


def test_a_change_wakes_who_waits():
    board, seen = Board(), []
    before = board.version
    waiter = threading.Thread(target=lambda: seen.append(board.wait(before, 30)))
    waiter.start()
    board.publish(status("a"))
    waiter.join(60)
    assert seen == [before + 1]


def test_waiting_ends_without_a_change_and_at_once_after_one():
    board = Board()
    assert board.wait(board.version, 0.01) == board.version
    board.publish(status("a"))
    assert board.wait(0, 30) == 1
