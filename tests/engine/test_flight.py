"""Flights: one leader, joiners by the leader's sample, nobody waits in a circle."""

import threading
from collections.abc import Callable
from typing import Any

from cachekit.engine.flight import ALONE, HANDED_OVER, Chain, Flight, Flights, Wait


def join(flights: Flights, key: str, chain: Chain | None = None, *, good: bool = True, **more: Any) -> Any:
    blocked: Callable[[], object] = more.pop("blocked", lambda: None)
    return flights.join(
        key,
        ticket=more.pop("ticket", 0),
        started=0.0,
        chain=chain,
        loop=more.pop("loop", None),
        blocked=blocked,
        may_join=lambda flight: good,
    )


def lead(flights: Flights, key: str, chain: Chain | None = None, **more: Any) -> Flight:
    place = join(flights, key, chain, **more)
    assert isinstance(place, Flight)
    return place


def test_the_first_leads_and_the_others_wait_for_its_result() -> None:
    flights = Flights()
    leader = lead(flights, "a")
    waits = [join(flights, "a") for _ in range(3)]
    assert all(isinstance(wait, Wait) for wait in waits)
    future = leader.end()
    assert future is not None
    future.set_result("value")
    assert [wait.future.result(0) for wait in waits] == ["value"] * 3
    assert len(flights) == 0


def test_a_lone_leader_makes_no_future() -> None:
    flights = Flights()
    assert lead(flights, "a").end() is None


def test_who_comes_first_leads_at_once_and_only_then_must_others_ask_whether_they_may_join() -> None:
    flights = Flights()
    leader = flights.lead("a", 3, 1.5, None)
    assert leader is not None
    assert (leader.ticket, leader.started) == (3, 1.5)
    assert flights.lead("a", 4, 2.0, None) is None
    assert isinstance(join(flights, "a"), Wait)
    leader.hand_over()
    assert flights.lead("a", 4, 2.0, None) is not None


def test_of_many_who_come_at_the_same_time_one_leads() -> None:
    flights, threads = Flights(), 8
    leaders: list[Flight] = []
    start = threading.Barrier(threads)

    def come(first: bool) -> None:
        for turn in range(300):
            start.wait(10)
            place = (flights.lead(f"key {turn}", 0, 0.0, None) if first else None) or join(flights, f"key {turn}")
            if isinstance(place, Flight):
                leaders.append(place)

    running = [threading.Thread(target=come, args=(number % 2 == 0,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert sorted(leader.key for leader in leaders) == sorted(f"key {turn}" for turn in range(300))
    assert all(leader.interested == threads for leader in leaders)


def test_a_flight_whose_sample_is_outdated_is_replaced_and_both_end_alone() -> None:
    flights = Flights()
    old = lead(flights, "a")
    new = lead(flights, "a", good=False)
    assert new is not old
    old.end()
    assert isinstance(join(flights, "a"), Wait), "ending the old flight must not end the new one"
    new.end()
    assert len(flights) == 0


def test_a_leader_who_gives_up_hands_over() -> None:
    flights = Flights()
    leader = lead(flights, "a")
    wait = join(flights, "a")
    leader.hand_over()
    assert wait.future.result(0) is HANDED_OVER
    assert isinstance(join(flights, "a"), Flight)


def test_a_function_that_calls_itself_with_the_same_arguments_computes_alone() -> None:
    flights = Flights()
    inside = Chain(lead(flights, "a"), None)
    assert join(flights, "a", inside) is ALONE
    assert join(flights, "a", inside, good=False) is ALONE, "a recursion must not replace the flight it is inside of"


def test_a_circle_over_two_leaders_ends_at_the_one_who_would_close_it() -> None:
    flights = Flights()
    a, b = lead(flights, "a"), lead(flights, "b")
    assert isinstance(join(flights, "b", Chain(a, None)), Wait)
    assert join(flights, "a", Chain(b, None)) is ALONE


def test_a_circle_over_three_leaders_and_a_nested_load_is_seen() -> None:
    flights = Flights()
    a, b, c = lead(flights, "a"), lead(flights, "b"), lead(flights, "c")
    nested = lead(flights, "a2", Chain(a, None))
    assert isinstance(join(flights, "b", Chain(nested, Chain(a, None))), Wait)
    assert isinstance(join(flights, "c", Chain(b, None)), Wait)
    assert join(flights, "a2", Chain(c, None)) is ALONE
    # a itself waits for nothing that anybody could see but its nested load, and so may be waited for
    assert isinstance(join(flights, "a"), Wait)


def test_who_left_is_not_part_of_a_circle() -> None:
    flights = Flights()
    a, b = lead(flights, "a"), lead(flights, "b")
    wait = join(flights, "b", Chain(a, None))
    wait.leave()
    assert isinstance(join(flights, "a", Chain(b, None)), Wait)


def test_a_blocking_call_does_not_wait_for_a_task_of_the_loop_it_blocks() -> None:
    flights = Flights()
    loop = object()
    task = lead(flights, "a", loop=loop)
    assert join(flights, "a", blocked=lambda: loop) is ALONE
    thread = lead(flights, "b")
    assert isinstance(join(flights, "b", blocked=lambda: loop), Wait)
    assert isinstance(join(flights, "a", Chain(thread, None)), Wait)
    assert join(flights, "b", blocked=lambda: loop) is ALONE, "the thread waits for a task of that loop"
    task.end()


def test_the_load_is_stopped_only_when_nobody_is_interested_any_more() -> None:
    flights = Flights()
    leader = lead(flights, "a")
    stopped = threading.Event()
    leader.stop = stopped.set
    wait = join(flights, "a")
    leader.leave()
    assert not stopped.is_set()
    wait.leave()
    assert stopped.is_set()
    assert isinstance(join(flights, "a"), Flight), "a stopped flight takes no passengers"


def test_a_child_process_starts_without_flights() -> None:
    flights = Flights()
    lead(flights, "a")
    flights.after_fork()
    assert isinstance(join(flights, "a"), Flight)


def test_who_waits_twice_for_one_flight_and_leaves_once_still_waits() -> None:
    flights = Flights()
    a, b = lead(flights, "a"), lead(flights, "b")
    first, _ = join(flights, "b", Chain(a, None)), join(flights, "b", Chain(a, None))
    first.leave()
    assert join(flights, "a", Chain(b, None)) is ALONE
