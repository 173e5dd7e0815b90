"""Cells: stamps that a process may trust for a while, and never after it cleared them itself."""

import os

from cachekit.l2.stamps import LONGEST_MS, MAX_CELLS, STAMP_BYTES, Cells, fresh_stamps, stamp_life_ms

A, B = b"a" * STAMP_BYTES, b"b" * STAMP_BYTES


def test_a_cell_is_known_until_its_time_is_over() -> None:
    cells = Cells(3.0)
    assert cells.get(["x"], 0.0) is None
    cells.put(["x", "y"], [A, B], 10.0, cells.ticket())
    assert cells.get(["y", "x"], 12.9) == [B, A]
    assert cells.get(["x"], 13.0) is None


def test_one_unknown_name_makes_all_unknown() -> None:
    cells = Cells(3.0)
    cells.put(["x"], [A], 0.0, cells.ticket())
    assert cells.get(["x", "z"], 0.0) is None


def test_an_answer_from_before_a_clear_is_not_remembered() -> None:
    cells = Cells(3.0)
    ticket = cells.ticket()
    cells.forget(["x"])
    cells.put(["x"], [A], 0.0, ticket)
    assert cells.get(["x"], 0.0) is None


def test_a_clear_forgets_at_once() -> None:
    cells = Cells(3.0)
    cells.put(["x", "y"], [A, B], 0.0, cells.ticket())
    cells.forget(["x"])
    assert cells.get(["x"], 0.0) is None
    assert cells.get(["y"], 0.0) == [B]
    cells.forget_all()
    assert cells.get(["y"], 0.0) is None


def test_cells_are_bounded() -> None:
    cells = Cells(3.0)
    for number in range(MAX_CELLS + 10):
        cells.put([str(number)], [A], 0.0, cells.ticket())
    assert len(cells._cells) <= MAX_CELLS


def test_fresh_stamps_differ_in_forked_children() -> None:
    reader, writer = os.pipe()
    for _ in range(20):
        if os.fork() == 0:
            os.write(writer, b"".join(fresh_stamps(2)))
            os._exit(0)
        os.wait()
    os.close(writer)
    drawn = os.read(reader, 10_000)
    os.close(reader)
    stamps = {drawn[at : at + STAMP_BYTES] for at in range(0, len(drawn), STAMP_BYTES)}
    assert len(stamps) == 40


def test_a_stamp_outlives_the_entries_under_it() -> None:
    assert stamp_life_ms(3600.0) >= 2 * 3_600_000
    assert stamp_life_ms(86_400.0 * 30) == 2 * 86_400_000 * 30
    assert stamp_life_ms(None) == LONGEST_MS


def test_a_live_cell_is_known_as_long_as_the_proof_lasts_and_until_it_is_told_of() -> None:
    cells = Cells(3.0)
    cells.alive_until = 13.0
    cells.put(["x"], [A], 10.0, cells.ticket(), live=True)
    assert cells.look(["x"], 12.9) == ([A], 10.0)
    assert cells.get(["x"], 13.0) is None
    cells.alive_until = 1000.0
    assert cells.get(["x"], 999.0) == [A]
    cells.forget(["x"])
    assert cells.get(["x"], 999.0) is None


def test_of_several_the_one_that_is_known_for_longest_ago_counts() -> None:
    cells = Cells(3.0)
    cells.put(["x"], [A], 10.0, cells.ticket())
    cells.put(["y"], [B], 11.0, cells.ticket())
    assert cells.look(["y", "x"], 12.0) == ([B, A], 10.0)


def test_an_answer_for_another_name_is_remembered_although_something_was_cleared() -> None:
    cells = Cells(3.0)
    ticket = cells.ticket()
    cells.forget(["x"])
    cells.put(["x", "y"], [A, B], 0.0, ticket)
    assert cells.get(["y"], 0.0) == [B]
    cells.forget_all()
    cells.put(["y"], [B], 0.0, ticket)
    assert cells.get(["y"], 0.0) is None, "everything was forgotten since"


def test_names_that_were_cleared_are_bounded() -> None:
    cells = Cells(3.0)
    ticket = cells.ticket()
    for number in range(MAX_CELLS + 10):
        cells.forget([str(number)])
    assert len(cells._gone) <= MAX_CELLS
    cells.put(["1"], [A], 0.0, ticket)
    assert cells.get(["1"], 0.0) is None
