"""How the fields that the policy reads are parsed, whatever is sent."""

import time

import pytest

from cachekit.http import conditional, control, dates
from cachekit.http.answer import outdated_urls
from cachekit.http.messages import Request, Response, host_of
from cachekit.http.page import sorted_query, tags_of, target, url_tag, variant

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["max-age=60"], {"max-age": ("60",)}),
        (["Max-AGE=60"], {"max-age": ("60",)}),  # names in any case
        (['max-age="60"'], {"max-age": ("60",)}),  # both forms of an argument (RFC 9111 section 5.2)
        (["max-age = 60 , public"], {"max-age": ("60",), "public": (None,)}),
        (["public", "max-age=60"], {"public": (None,), "max-age": ("60",)}),  # several lines are one list
        (["max-age=60, max-age=5"], {"max-age": ("60", "5")}),
        ([",, public ,,"], {"public": (None,)}),
        (['x="no-store, max-age=60"'], {"x": ("no-store, max-age=60",)}),
        (['x="a\\"b", public'], {"x": ('a"b',), "public": (None,)}),
        (["max-age="], {"max-age": (None,)}),
        (["private; max-age=5"], {"private": ("",)}),
        (["(x), =5, ;public"], {}),
        ([], {}),
        ([""], {}),
    ],
)
def test_cache_control_is_read(values: list[str], expected: dict[str, tuple[str | None, ...]]) -> None:
    assert control.directives(values) == expected


@pytest.mark.parametrize("value", ['x="a, no-store', '"no-store, private', 'x="\\", no-store', 'a="b" c", no-store'])
def test_a_quote_that_does_not_end_hides_nothing(value: str) -> None:
    assert "no-store" in control.directives([value]) or "private" in control.directives([value])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("public; no-store", "no-store"), ("must-revalidate no-store", "no-store"), (";No-Store", "no-store"),
        ("must-revalidate; private", "private"), ("\u00a0private", "private"), ("\x0bno-cache", "no-cache"),
        ("max-age=60;private", "private"), ("max-age=60 no-cache", "no-cache"), ("=private", "private"),
        ('public; private="x"', "private"), ("no-transform;max-age=5;no-store", "no-store"),
    ],
)  # fmt: skip
def test_what_is_malformed_hides_nothing(value: str, name: str) -> None:
    """Whoever writes it does not want it kept."""
    assert name in control.directives([f"max-age=60, {value}, public"])


@pytest.mark.parametrize(
    "value", ['x="a no-store b"', "x=private", "no-storey", "x-no-store", "public", "x=y private-x"]
)
def test_what_only_looks_so_says_nothing(value: str) -> None:
    assert not {"no-store", "private", "no-cache"} & {*control.directives([value])}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=0", 0), ("max-age=3600", 3600), ("max-age=007", 7), ('max-age="10"', 10),
        ("max-age=-1", 0), ("max-age=1.5", 0), ("max-age=1e3", 0), ("max-age", 0), ("max-age=", 0), ("max-age=abc", 0),
        ("max-age='10'", 0), ("max-age=10s", 0), ("max-age=10, max-age=20", 10), ("max-age=20, max-age", 0),
        ("max-age=99999999999", 2**31), ("max-age=" + "9" * 10_000, 2**31), ("max-age=" + "0" * 5000 + "7", 7),
        ("max-age=²", 0), ("max-age=٣", 0), ("max-age=9;9", 0),
        ("public", None), ("x-max-age=7", None),
    ],
)  # fmt: skip
def test_seconds_of_a_directive(value: str, seconds: int | None) -> None:
    assert control.seconds(control.directives([value]), "max-age") == seconds


@pytest.mark.parametrize("text", ['"\\"', '"\\', ",", '"', "\\", "a=", ' "', "W/", "a ", "; "])
def test_reading_is_linear(text: str) -> None:
    """A client may send 64 KB of anything: seconds of work would be an attack."""
    value, request = text * (65536 // len(text)), Request("GET", "http", "h", "/", b"", ())
    began = time.process_time()
    control.directives([value])
    conditional.unchanged(
        request._replace(fields=(("if-none-match", value),)), Response(200, (("etag", '"x"'),), b""), NOW
    )
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Accept"], ("accept",)), (["b, A", "C"], ("a", "b", "c")), (["a,A, a"], ("a",)), (["*"], ("*",)),
        (["accept, *"], ("*", "accept")), ([" , "], ()), ([], ()),
    ],
)  # fmt: skip
def test_vary_is_read(values: list[str], expected: tuple[str, ...]) -> None:
    assert control.names(values) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777.0),  # RFC 9110 section 5.6.7: all three
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777.0),
        ("Sun Nov  6 08:49:37 1994", 784111777.0),
        ("  Sun, 06 Nov 1994 08:49:37 GMT ", 784111777.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Tuesday, 01-Jan-30 00:00:00 GMT", 1893456000.0),  # three years ahead
        ("Friday, 01-Jan-99 00:00:00 GMT", 915148800.0),  # more than 50 years ahead: the past
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800.0),  # a leap second
        ("sun, 06 nov 1994 08:49:37 gmt", None),  # dates are case-sensitive
        ("Sun, 06 Nov 1994 08:49:37 UTC", None), ("Sun, 06 Nov 1994 08:49:37", None),
        ("Sun, 06 Nov 1994 08:49:37 +0000", None), ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None), ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 24:49:37 GMT", None), ("Sun, 06 Nov 1994 08:60:37 GMT", None),
        ("Sun, 31 Feb 2016 08:49:37 GMT", None), ("Sun, 00 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("0", None), ("-1", None), ("", None), ("1994-11-06T08:49:37Z", None),
    ],
)  # fmt: skip
def test_dates_are_read(text: str, expected: float | None) -> None:
    assert dates.parse(text, NOW) == expected


def test_dates_are_written_in_the_one_form_that_is_in_use() -> None:
    assert dates.format(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"


TAG, WEAK = '"x"', 'W/"x"'


@pytest.mark.parametrize(
    ("wanted", "tag", "same"),
    [
        (['"x"'], TAG, True), (['W/"x"'], TAG, True), (['"x"'], WEAK, True), (['W/"x"'], WEAK, True),
        (['"y"'], TAG, False), (['"y", "x"'], TAG, True), (['"y"', '"x"'], TAG, True), (['"y",,"x"'], TAG, True),
        (["*"], TAG, True), (["*"], None, True), ([" * "], TAG, True), (['*, "y"'], TAG, False),
        (["x"], TAG, False), (["'x'"], TAG, False), (['"X"'], TAG, False), (['w/"x"'], TAG, False),
        (['"x'], TAG, False), (['"x" "y"'], TAG, False), (['"y, "x"'], TAG, False), ([""], TAG, False),
        (['"a,b"'], '"a,b"', True), (['"a", "b"'], '"a,b"', False), (['"a\\", "x"'], TAG, True),
        (['"a b"'], '"a b"', False), (['"x"'], None, False),
    ],
)  # fmt: skip
def test_if_none_match(wanted: list[str], tag: str | None, same: bool) -> None:
    """RFC 9110 section 13.1.2: lists, weak comparison, and the star for whatever there is."""
    request = Request("GET", "http", "h", "/", b"", tuple(("if-none-match", value) for value in wanted))
    response = Response(200, () if tag is None else (("etag", tag),), b"")
    assert conditional.unchanged(request, response, NOW) is same


@pytest.mark.parametrize(
    ("written", "scheme", "expected"),
    [
        ("Example.COM", "http", "example.com"), ("example.com:80", "http", "example.com"),
        ("example.com:443", "https", "example.com"), ("example.com:", "http", "example.com"),
        ("example.com:443", "http", "example.com:443"), ("example.com:80", "https", "example.com:80"),
        ("example.com:8080", "http", "example.com:8080"), ("[::1]:80", "http", "[::1]"), ("[::1]", "http", "[::1]"),
        ("::80", "http", "::80"), ("a:80:80", "http", "a:80:80"), ("", "http", ""), (":80", "ftp", ":80"),
    ],
)  # fmt: skip
def test_hosts_are_compared_without_case_and_default_port(written: str, scheme: str, expected: str) -> None:
    """RFC 9110 section 4.2.3."""
    assert host_of(scheme, written) == expected == host_of(scheme, expected)


def at(path: str = "/", query: bytes = b"", **changes: str) -> Request:
    return Request("GET", "http", "example.com", path, query, ())._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (at("/a/b"), at("/a%2Fb")), (at("/a"), at("/a/")), (at("/a"), at("/A")), (at("/a/../b"), at("/b")),
        (at("//a"), at("/a")), (at("/a%20b"), at("/a+b")), (at("/a", b"b"), at("/a?b")), (at("/a;b"), at("/a")),
        (at(query=b"x=1"), at(query=b"x=2")), (at(query=b"x=1&x=2"), at(query=b"x=2&x=1")), (at(), at(query=b"x")),
        (at(query=b"a=b%26c=d"), at(query=b"a=b&c=d")), (at(), at(scheme="https")), (at(), at(host="example.org")),
        (at(), at(host="example.com:8080")),
    ],
)  # fmt: skip
def test_different_targets_have_different_keys(one: Request, other: Request) -> None:
    assert target(one, None) != target(other, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (at(query=b"a=1&b=2"), at(query=b"b=2&a=1")), (at(), at(host="EXAMPLE.com")), (at(), at(host="example.com:80")),
        (at(), at(method="HEAD")),
    ],
)  # fmt: skip
def test_what_means_the_same_has_one_key(one: Request, other: Request) -> None:
    assert target(one, None) == target(other, None)


def test_users_have_keys_of_their_own() -> None:
    keys = {target(at(), user) for user in (None, "", "anna", "bert")}
    assert len(keys) == 4
    assert not any("anna" in str(key) for key in keys)  # which is nobody's business


def test_parameters_of_one_name_keep_their_order() -> None:
    assert sorted_query(b"b=2&a=1&b=1&%61=0") == b"a=1&%61=0&b=2&b=1"


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("x", "1, 2", "1,2", True), ("x", " 1 ,2", "1,2", True), ("x", "a", "A", False), ("x", "1,2", "2,1", False),
        ("x", None, "", False), ("x", '"a, b"', '"a,b"', False), ("accept-language", "de, EN", "DE,en", True),
        ("accept-language", "de,en", "en,de", False), ("accept-encoding", "GZIP", "gzip", True),
        ("authorization", "Basic A", "Basic a", False),
    ],
)  # fmt: skip
def test_values_that_pages_vary_by(name: str, one: str | None, other: str | None, same: bool) -> None:
    """RFC 9111 section 4.1: only what is known to mean the same may be taken for the same."""
    made = [variant(at()._replace(fields=() if value is None else ((name, value),)), (name,)) for value in (one, other)]
    assert (made[0] == made[1]) is same


def test_several_lines_are_one_value() -> None:
    assert variant(at()._replace(fields=(("x", "1"), ("x", "2"))), ("x",)) == variant(
        at()._replace(fields=(("x", "1, 2"),)), ("x",)
    )


def test_values_do_not_lie_beside_the_page() -> None:
    assert "secret" not in variant(at()._replace(fields=(("cookie", "secret"),)), ("cookie",))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/café", "/caf%C3%A9"), ("/a%2Fb", "/a/b"), ("/a%20b", "/a%2520b"), ("/%ff", "/%FF"), ("/100%", "/100%25"),
        ("/%41%4a", "/AJ"), ("/%4%31", "/A"), ("/%%34%31", "/A"), ("/%2525252541", "/A"), ("/%zz%", "/%25zz%2525"),
    ],
)  # fmt: skip
def test_tags_of_urls_do_not_depend_on_how_they_are_written(one: str, other: str) -> None:
    assert url_tag("http", "h", one, None) == url_tag("http", "H:80", other, None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"q=a+b", b"q=a%20b"), (b"q=%c3%a9", b"q=%C3%A9"), (b"q=\xc3\xa9", b"q=%C3%A9"), (b"%71=a", b"q=a"),
        (b"b=1&a=%2b", b"a=%2B&b=1"), (b"q=a/b:c", b"q=a%2Fb%3Ac"), (b"%62=1&a=2", b"a=2&b=1"),
    ],
)  # fmt: skip
def test_tags_of_urls_do_not_depend_on_how_their_query_is_written(one: bytes, other: bytes) -> None:
    assert url_tag("http", "h", "/", one) == url_tag("http", "h", "/", other)


@pytest.mark.parametrize("path", ["/%" + "25" * 30_000, "/%2" + "%3" * 30_000 + "%35", "/" + "%25" * 20_000])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_making_tags_is_linear(method: str, path: str) -> None:
    """Whoever sends a path that was encoded thousands of times would stop the process."""
    request, began = at(path, b"x=" + path.encode(), method=method), time.process_time()
    tags_of((*target(request, None), ""))
    outdated_urls(request, Response(200, (("location", path),), b""))
    assert time.process_time() - began < 2


def test_tags_of_urls_differ() -> None:
    places = [("http", "h", "/", None), ("https", "h", "/", None), ("http", "i", "/", None), ("http", "h", "/a", None),
              ("http", "h", "/", b""), ("http", "h", "/", b"x"), ("http", "h:8080", "/", None)]  # fmt: skip
    assert len({url_tag(*place) for place in places}) == len(places)
    assert url_tag("http", "h", "/", b"a&b") == url_tag("http", "h", "/", b"b&a")
    assert url_tag("http", "h", "/", b"q=a+b") != url_tag("http", "h", "/", b"q=a%2Bb")


def test_a_page_has_the_tags_of_its_url_and_of_its_path() -> None:
    request = at("/a", b"y=1&x=2", host="Example.com:80")
    assert tags_of((*target(request, "anna"), "")) == (
        url_tag("http", "example.com", "/a", b"x=2&y=1"),
        url_tag("http", "example.com", "/a", None),
    )
