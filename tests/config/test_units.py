"""Durations, sizes, booleans, lists and names as people write them."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.config.units import (
    check_name,
    format_duration,
    format_size,
    nearest,
    parse_bool,
    parse_duration,
    parse_list,
    parse_size,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30.0), (0.5, 0.5), ("30", 30.0), ("1.5", 1.5), ("30s", 30.0), ("250ms", 0.25), ("2h5m", 7500.0),
        ("2h 5m", 7500.0), (" 1d ", 86400.0), ("1w", 604800.0), ("1.5h", 5400.0), ("1m500ms", 60.5),
        (timedelta(minutes=5), 300.0), ("never", None), ("NEVER", None), (None, None),
    ],
)  # fmt: skip
def test_a_duration_may_be_written_in_these_ways(written: object, seconds: float | None) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "5 parsecs", "", " ", "h", "5m2h", "1h1h", "-5", "-5s", "1e5", "inf", "nan", "5M", "٣s", "5µs", "1_000",
        True, False, -1, -0.5, math.nan, [], {}, b"5s", timedelta(seconds=-1),
    ],
)  # fmt: skip
def test_what_is_not_a_duration_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match="not a duration; write 30, '30s', '5m', '2h5m', '1d' or 'never'"):
        parse_duration(written)


@pytest.mark.parametrize("written", [math.inf, 10**400, "9" * 400, "36525w", timedelta.max])
def test_a_duration_that_no_timer_can_hold_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="100 years"):
        parse_duration(written)


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0s", "0h0m", timedelta()])
def test_zero_is_refused_unless_it_is_allowed(zero: object) -> None:
    with pytest.raises(ValueError, match="0 is ambiguous"):
        parse_duration(zero)
    assert parse_duration(zero, zero=True) == 0


@given(st.integers(min_value=1, max_value=10**12))
def test_a_formatted_duration_is_read_back_exactly(millis: int) -> None:
    assert parse_duration(format_duration(millis / 1000)) == pytest.approx(millis / 1000, rel=1e-12)


@given(st.floats(min_value=1e-9, max_value=3e9))
def test_any_duration_is_read_back_closely(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-9, abs=1e-12)


@given(st.floats() | st.text(max_size=20) | st.timedeltas() | st.integers() | st.none() | st.booleans())
def test_every_input_gives_usable_seconds_or_a_value_error(written: object) -> None:
    try:
        seconds = parse_duration(written)
    except ValueError:
        return
    assert seconds is None or 0 < seconds < 4e9


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "never"), (0, "0s"), (0.25, "250ms"), (30, "30s"), (300, "5m"), (7500, "2h5m"), (90061.5, "1d1h1m1s500ms")],
)
def test_durations_are_shown_shortly(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (65536, 65536), ("65536", 65536), ("64KiB", 65536), ("64 MiB", 64 * 2**20), ("10MB", 10**7), ("1kB", 1000),
        ("1GiB", 2**30), ("1.5KiB", 1536), ("7B", 7), (0, 0),
    ],
)  # fmt: skip
def test_a_size_may_be_written_in_these_ways(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["64K", "64M", "-1", "1.3B", "", "MiB", -1, True, 1.5, None, [], "9" * 400])
def test_what_is_not_a_size_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ValueError, match="not a size; write 65536"):
        parse_size(written)


@given(st.integers(min_value=0, max_value=2**50))
def test_a_formatted_size_is_read_back_exactly(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_booleans_may_be_written_in_the_usual_words() -> None:
    assert all(parse_bool(word) for word in (True, 1, "true", "TRUE", "1", "yes", "on"))
    assert not any(parse_bool(word) for word in (False, 0, "false", "False", "0", "no", "off"))


@pytest.mark.parametrize("written", ["", "maybe", 2, None, 1.0, []])
def test_what_is_not_a_boolean_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="not a boolean"):
        parse_bool(written)


def test_a_list_is_written_as_a_list_with_commas_or_as_json() -> None:
    assert parse_list(["a", "b"]) == parse_list("a, b") == parse_list('["a", "b"]') == ("a", "b")
    assert parse_list("a,,") == ("a",)
    assert parse_list({"b", "a"}) == ("a", "b")


@pytest.mark.parametrize("written", [5, None, [1], "[1]", "[a", {"a": 1}, b"a"])
def test_what_is_not_a_list_of_texts_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="not a list"):
        parse_list(written)


@pytest.mark.parametrize("name", ["a", "user-tokens", "django.default", "A_1", "x" * 64])
def test_names_of_this_kind_are_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a:b", "a{b", "a b", "x" * 65, "a__b", "a--b", "a.-b", "ä", "a\n", 5, None])
def test_names_that_would_break_a_key_or_a_variable_are_refused(name: object) -> None:
    with pytest.raises(ValueError, match="not a name"):
        check_name(name)


def test_the_nearest_name_is_found_whatever_its_case_and_separator() -> None:
    assert nearest("max_entires", ["ttl", "max_entries"]) == "max_entries"
    assert nearest("USER_TOKENS", ["users", "user-tokens"]) == "user-tokens"
    assert nearest("zzz", ["ttl"]) is None
