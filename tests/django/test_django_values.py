"""Responses, headers, cookies and safe text come back as they were, from L1 and from stored bytes, without pickle."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cachekit.codec import serializers
from cachekit.codec.envelope import Damaged
from cachekit.errors import Unstorable
from cachekit.l1.values import admit, adopt, isolate

pytestmark = pytest.mark.usefixtures("set_up")


def stored(value: Any) -> Any:
    codec, payload = serializers.dump(value, plain=False, limit=1_000_000)
    return serializers.load(codec, payload)


def copied(value: Any) -> Any:
    adopted = adopt(value, admit(value).mode)
    assert adopted.mode == "copy"
    return adopted.renew(adopted.value)


ways = pytest.mark.parametrize("way", [stored, copied, lambda value: isolate(value, "copy")])
Way = Callable[[Any], Any]


def response(**kwargs: Any) -> Any:
    from django.http import HttpResponse

    made = HttpResponse("héllo", status=203, reason="Made up", charset="latin-1", headers={"X-a": "b"}, **kwargs)
    made.set_cookie("a", 'b c; "d" é', max_age=5, secure=True, httponly=True, samesite="Lax", domain="x.org")
    made.set_signed_cookie("s", "t")
    made.delete_cookie("gone")
    made.mine = {"nested": [("tuple", 1)]}
    return made


@ways
def test_a_response_comes_back_whole(way: Way) -> None:
    before = response()
    after = way(before)
    assert type(after) is type(before)
    assert after.serialize() == before.serialize()
    assert (after.status_code, after.reason_phrase, after.charset) == (203, "Made up", "latin-1")
    assert (type(after.headers), dict(after.headers)) == (type(before.headers), dict(before.headers))
    assert after["x-A"] == "b"
    assert (type(after.cookies), after.cookies) == (type(before.cookies), before.cookies)
    assert after.cookies.output() == before.cookies.output()
    assert after.mine == before.mine
    assert after.text == "héllo"
    assert after.closed is False


@ways
def test_what_happens_to_one_copy_does_not_happen_to_another(way: Way) -> None:
    before = response()
    text = before.serialize(), before.cookies.output()
    after = way(before)
    after["X-B"] = "c"
    after.write(b"more")
    after.cookies["a"]["path"] = "/other"
    after.set_cookie("b", "c")
    after.mine["nested"].append(1)
    after.close()
    assert (before.serialize(), before.cookies.output()) == text
    assert before.mine == {"nested": [("tuple", 1)]}


@ways
def test_what_belongs_to_the_request_stays_with_it(way: Way) -> None:
    before = response()
    before._resource_closers.append(lambda: 1 / 0)
    before._handler_class = type(before)
    before.closed = True
    after = way(before)
    assert (after._resource_closers, after._handler_class, after.closed) == ([], None, False)


@ways
def test_every_kind_of_response_comes_back(way: Way) -> None:
    from django import http
    from django.template.response import SimpleTemplateResponse, TemplateResponse

    template = TemplateResponse(None, "page.html", {"run": object()}).render()
    kinds = [
        http.HttpResponseRedirect("/x"), http.HttpResponsePermanentRedirect("/x"), http.HttpResponseNotModified(),
        http.HttpResponseNotAllowed(["GET"]), http.JsonResponse({"a": 1}), http.HttpResponseNotFound("no"), template,
        SimpleTemplateResponse("page.html").render(), http.HttpResponse([b"a", b"b"]), http.HttpResponse(),
    ]  # fmt: skip
    for before in kinds:
        after = way(before)
        assert type(after) is type(before)
        assert after.serialize() == before.serialize()
        assert after.status_code == before.status_code
        assert list(after) == list(before)
    assert way(template).is_rendered
    assert not hasattr(way(template), "context_data")


def test_a_response_that_is_not_rendered_is_refused() -> None:
    from django.template.response import SimpleTemplateResponse

    assert admit(SimpleTemplateResponse("page.html")).mode == "opaque"
    with pytest.raises(Unstorable, match="must be rendered"):
        stored(SimpleTemplateResponse("page.html"))


def test_a_response_with_something_that_cannot_be_stored_is_refused() -> None:
    from django.http import FileResponse, StreamingHttpResponse

    before = response()
    before.lock = object()
    assert admit(before).mode == "opaque"
    for refused in (before, StreamingHttpResponse(["x"]), FileResponse(open(__file__, "rb"))):  # noqa: PTH123, SIM115
        with pytest.raises(Unstorable):
            stored(refused)
        getattr(refused, "close", int)()


def test_safe_text_stays_safe() -> None:
    from django.utils.safestring import SafeString, mark_safe

    text = mark_safe("<b>é\ud800</b>")
    assert admit(text).mode == "share"
    for after in (stored(text), stored([text])[0], stored({text: 1}).popitem()[0], stored({"a": text})["a"]):
        assert type(after) is SafeString
        assert after == text


def test_cookies_alone_come_back() -> None:
    from http.cookies import SimpleCookie

    jar = SimpleCookie('a=b; c="d e"')
    jar["a"]["max-age"] = 5
    jar["a"]["secure"] = True
    for way in (stored, copied):
        assert type(way(jar)) is SimpleCookie
        assert way(jar) == jar
        assert way(jar).output() == jar.output()
    assert stored(SimpleCookie()) == {}


@ways
def test_query_strings_and_forms_come_back(way: Way) -> None:
    from django.http import QueryDict
    from django.utils.datastructures import MultiValueDict

    for before in (QueryDict("a=1&a=2&b="), QueryDict("a=1", mutable=True), MultiValueDict({1: ["x", 2], "n": []})):
        after = way(before)
        assert type(after) is type(before)
        assert (after, list(after.lists())) == (before, list(before.lists()))
        assert vars(after) == vars(before)
    after = way(QueryDict("a=1"))
    assert (after["a"], after.urlencode()) == ("1", "a=1")
    with pytest.raises(AttributeError, match="immutable"):
        after["a"] = "2"


@ways
def test_a_text_that_waits_for_its_language_waits_on(way: Way) -> None:
    from django.urls import reverse_lazy
    from django.utils.functional import Promise, lazystr
    from django.utils.translation import gettext_lazy, override, pgettext_lazy

    for before in (gettext_lazy("Yes"), pgettext_lazy("ordinal 0", "{}th")):
        after = way([before])[0]
        assert isinstance(after, Promise)
        for language in ("de", "fr"):
            with override(language):
                assert str(after) == str(before)
    with override("de"):
        assert str(way([gettext_lazy("Yes")])[0]) == "Ja"
    assert way([reverse_lazy("cachekit-metrics")]) == ["/metrics"]
    assert admit(lazystr("x")).mode == "opaque"


@ways
def test_a_lazy_object_comes_back_as_what_it_wraps(way: Way) -> None:
    from django.utils.functional import SimpleLazyObject

    after = way({"user": SimpleLazyObject(lambda: {"name": "ann"})})
    assert type(after["user"]) is dict
    assert after == {"user": {"name": "ann"}}


@ways
def test_the_data_of_a_serializer_comes_back_without_it(way: Way) -> None:
    from rest_framework import serializers as rest

    class Item(rest.Serializer):  # type: ignore[misc]
        name = rest.CharField()

    one, many = Item({"name": "a"}).data, Item([{"name": "a"}, {"name": "b"}], many=True).data
    after = way({"one": one, "many": many})
    assert (type(after["one"]), type(after["many"])) == (dict, list)
    assert after == {"one": one, "many": many}


def test_what_a_session_holds_comes_back() -> None:
    import datetime
    import decimal
    import uuid

    data = {
        "_auth_user_id": "1", "_messages": '[["a"]]', "cart": [{"id": uuid.UUID(int=5), "price": decimal.Decimal("1")}],
        "at": datetime.datetime.now(datetime.UTC), 5: ("x", {1, 2}),
    }  # fmt: skip
    assert stored(data) == copied(data) == data


def forge(marker: str, parts: list[Any]) -> Any:
    import msgpack

    tree = [msgpack.ExtType(52, marker.encode()), *parts]
    return serializers.load(serializers.MARKED, msgpack.packb(tree))


@pytest.mark.parametrize(
    ("marker", "parts"),
    [
        ("django.utils.safestring:SafeString", []),
        ("django.utils.safestring:SafeString", [5]),
        ("django.utils.safestring:SafeString", ["a", "b"]),
        ("django.http.response:ResponseHeaders", ["a"]),
        ("django.http.response:ResponseHeaders", [1, "b"]),
        ("django.http.response:ResponseHeaders", ["a", "b\r\nSet-Cookie: c"]),
        ("django.http.response:HttpResponse", []),
        ("django.http.response:HttpResponse", ["_container"]),
        ("django.http.response:HttpResponse", ["_container", [b"x"]]),
        ("django.http.response:HttpResponse", ["_container\0headers\0cookies", [b"x"], {}, {}]),
        ("django.http.response:HttpResponse", ["_container\0headers\0cookies", ["x"], {}, {}]),
        ("django.http.response:StreamingHttpResponse", ["_container", [b"x"]]),
        ("http.cookies:SimpleCookie", ["a"]),
        ("http.cookies:SimpleCookie", ["a", "b", "c", 5]),
        ("http.cookies:SimpleCookie", ["a", "b", "c", 2, "nonsense", "d"]),
        ("http.cookies:SimpleCookie", ["a b", "b", "c", 0]),
        ("http.cookies:Morsel", []),
        ("django.conf:LazySettings", []),
        ("django.http.request:QueryDict", []),
        ("django.http.request:QueryDict", [{}, "a", "b"]),
        ("django.http.request:QueryDict", [{}, "a"]),
        ("django.http.request:QueryDict", [{1: 2}]),
        ("django.utils.functional:Promise", []),
        ("django.utils.functional:Promise", ["", 1]),
        ("django.utils.functional:Promise", ["get_language"]),
        ("django.utils.functional:Promise", ["gettext", "a", "b"]),
        ("django.utils.functional:Promise", ["pgettext", "a"]),
        ("django.utils.functional:SimpleLazyObject", []),
        ("rest_framework.utils.serializer_helpers:ReturnDict", ["a"]),
        ("django.nowhere:SafeString", ["a"]),
        ("builtins:str", ["a"]),
    ],
)
def test_forged_parts_are_damage_and_nothing_else(marker: str, parts: list[Any]) -> None:
    with pytest.raises(Damaged):
        forge(marker, parts)


def test_the_codec_imports_nothing_of_django() -> None:
    program = """
import sys
from cachekit.codec import serializers
from cachekit.codec.envelope import Damaged
import cachekit.l1.values, msgpack
payload = msgpack.packb([msgpack.ExtType(52, b"django.utils.safestring:SafeString"), "a"])
try:
    serializers.load(serializers.MARKED, payload)
except Damaged:
    print("damaged")
print([name for name in sys.modules if name.split(".")[0] == "django"])
"""
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True, timeout=60)
    assert done.stdout == "damaged\n[]\n"
