"""Views of Flask by the shared HTTP policy: conditions, ages, variants, users, errors, and pages computed behind."""

import itertools
import threading
from wsgiref.validate import validator

import pytest
from flask import Flask, Response, abort, g, make_response, request, session, stream_with_context
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client, EnvironBuilder

from cachekit import Outcome
from cachekit.config.settings import load
from cachekit.integrations.flask import CachedResponse, CacheKit
from cachekit.process import replace_default
from cachekit.service import Service
from cachekit.testing.clock import FrozenClock
from cachekit.testing.servers import start_server

CONFIG = {
    "profiles": {
        "default": {"backend": "none", "ttl": "1m"},
        "behind": {"stale_ttl": "10m", "swr": True},
        "stale": {"stale_ttl": "10m"},
    }
}


@pytest.fixture(autouse=True)
def clock():
    """A default service of the test's own, whose clock stands still."""
    clock = FrozenClock()
    service = Service(load([], settings=CONFIG, environ={}), clock=clock)
    before = replace_default(service)
    yield clock
    replace_default(before)
    service.close()


class Site:
    """An application with one cached view at ``/``, and how often it ran."""

    def __init__(self, view=None, rule="/", methods=("GET", "POST"), inside=None, **options):
        self.cache = CacheKit()
        self.app = Flask("pages", static_folder=None)
        self.app.config["SECRET_KEY"] = "of sessions"
        self.runs = 0
        self.view = view

        def page(**kwargs):
            self.runs += 1
            return f"page {self.runs}" if self.view is None else self.view(**kwargs)

        self.page = self.cache.cached(**options)(page)
        self.app.add_url_rule(rule, view_func=self.page, methods=list(methods))
        if inside is True:  # of what we put around the application
            self.app.wsgi_app = ProxyFix(self.app.wsgi_app, x_host=1, x_proto=1)
        self.cache.init_app(self.app)
        if inside is False:
            self.app.wsgi_app = ProxyFix(self.app.wsgi_app, x_host=1, x_proto=1)

    def ask(self, path="/", method="GET", **headers):
        client = self.app.test_client(use_cookies=False)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.open(path, method=method, headers=fields)

    def settled(self):
        assert self.app.extensions["cachekit"].service().workers.settle(10)


def results(answers):
    return [answer.headers.get("X-Cache") for answer in answers]


class TestAnswers:
    """What an answer says of itself."""

    def test_miss_and_hit(self, clock):
        site = Site()
        first = site.ask()
        clock.advance("7s")
        second = site.ask()
        assert results([first, second]) == ["MISS", "HIT"]
        assert first.headers["Cache-Status"] == "cachekit; fwd=uri-miss; stored"
        assert second.headers["Cache-Status"] == "cachekit; hit; ttl=53"
        assert second.headers["Age"] == "7"
        assert first.headers["ETag"] == second.headers["ETag"]
        assert first.headers["Date"] == second.headers["Date"]
        assert first.headers["Cache-Control"] == "no-cache"
        clock.advance("54s")
        assert site.ask().headers["X-Cache"] == "MISS"

    @pytest.mark.parametrize("timeout", [0, None, 5, "5s"])
    def test_timeouts(self, clock, timeout):
        site = Site(timeout=timeout)
        for after, expected in ({0: (10**7, "HIT"), None: (59, "HIT"), 5: (6, "MISS"), "5s": (4, "HIT")}[timeout],):
            site.ask()
            clock.advance(after)
            assert site.ask().headers["X-Cache"] == expected

    def test_a_timeout_can_be_set_later(self, clock):
        site = Site(timeout=5)
        assert site.page.cache_timeout == 5
        site.page.cache_timeout = 50
        site.ask()
        clock.advance(49)
        assert site.ask().headers["X-Cache"] == "HIT"

    def test_a_response_says_how_long_it_lives(self, clock):
        site = Site(lambda: CachedResponse(make_response("x"), timeout=5))
        site.ask()
        clock.advance(4)
        assert site.ask().headers["X-Cache"] == "HIT"
        clock.advance(2)
        assert site.ask().headers["X-Cache"] == "MISS"
        site = Site(lambda: ("x", {"Cache-Control": "max-age=10"}), timeout=5, version=2)
        site.ask()
        clock.advance(9)
        assert site.ask().headers["X-Cache"] == "HIT"

    def test_entity_tags_answer_who_has_the_page_by_304(self):
        site = Site()
        tag = site.ask().headers["ETag"]
        for wanted in (tag, f'"other", W/{tag}', "*"):
            answer = site.ask(if_none_match=wanted)
            assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", tag)
            assert answer.headers["X-Cache"] == "HIT"
        assert site.ask(if_none_match='"other"').status_code == 200
        assert site.ask(if_none_match=tag, cache_control="no-cache").headers["X-Cache"] == "MISS"

    def test_the_first_run_too_answers_by_304_and_closes_the_response(self):
        closed = []

        def view():
            response = make_response("x")
            response.call_on_close(lambda: closed.append(1))
            return response

        site = Site(view)
        with site.ask() as first:
            tag = first.headers["ETag"]
        answer = site.ask(if_none_match=tag, cache_control="no-cache")
        assert (answer.status_code, answer.data, site.runs, len(closed)) == (304, b"", 2, 2)

    def test_clients_may_keep_a_page_as_long_as_the_view_says(self):
        site = Site(client_ttl="30s")
        assert site.ask().headers["Cache-Control"] == "max-age=30"

    def test_a_response_of_a_class_of_the_application_stays_what_it_is(self):
        class Mine(Response):
            default_mimetype = "text/x-mine"

        site = Site()
        site.app.response_class = Mine
        assert [site.ask().mimetype for _ in range(2)] == ["text/x-mine"] * 2


numbers = itertools.count()


class Shouting:
    """Ways in which a response class of an application may make its own of what goes out."""

    def told(self, environ, start_response):
        def start(status, fields, exc_info=None):
            return start_response(status, [*fields, ("X-Mine", "1")])

        return Response.__call__(self, environ, start)

    def response_told(self, environ):
        body, status, fields = Response.get_wsgi_response(self, environ)
        return body, status, [*fields, ("X-Mine", "1")]

    def fields_told(self, environ):
        fields = Response.get_wsgi_headers(self, environ)
        fields["X-Mine"] = "1"
        return fields

    def begun(self, *args, **kwargs):
        Response.__init__(self, *args, **kwargs)
        self.headers["X-Mine"] = "1"
        self.headers["X-Given"] = str(next(numbers))


class TestWhatGoesOut:
    """An application may do to a kept page what it may do to any response."""

    @pytest.mark.parametrize(
        ("name", "way"),
        [("__call__", Shouting.told), ("get_wsgi_response", Shouting.response_told),
         ("get_wsgi_headers", Shouting.fields_told), ("__init__", Shouting.begun)],
    )  # fmt: skip
    def test_its_own_class_does_it_in_its_own_way(self, name, way):
        site = Site()
        site.app.response_class, given = type("Mine", (Response,), {name: way}), set()
        site.app.after_request(lambda response: given.add(response.headers.get("X-Given")) or response)
        answers = [site.ask() for _ in range(3)]
        assert results(answers) == ["MISS", "HIT", "HIT"]
        assert [answer.headers.getlist("X-Mine") for answer in answers[1:]] == [["1"]] * 2
        assert [answer.text for answer in answers] == ["page 1"] * 3
        assert len(given) == (3 if name == "__init__" else 1)

    @pytest.mark.parametrize("way", ["get_app_iter", "iter_encoded"])
    def test_its_own_class_gives_the_body_in_its_own_way(self, way):
        site = Site()
        site.app.response_class = type("Mine", (Response,), {way: lambda self, *args: iter([b"m", b"ine"])})
        assert [site.ask(x="1").text for _ in range(3)][1:] == ["mine"] * 2

    def test_fields_that_are_added_are_this_requests(self):
        site = Site()
        given = iter(range(100))

        @site.app.after_request
        def number(response):
            response.headers["X-Number"] = str(next(given))
            return response

        answers = [site.ask() for _ in range(4)]
        assert [answer.headers["X-Number"] for answer in answers] == ["0", "1", "2", "3"]
        assert results(answers) == ["MISS", "HIT", "HIT", "HIT"]

    def test_a_body_that_is_changed_is_this_requests(self):
        site = Site()

        @site.app.after_request
        def change(response):
            if "X-Change" in request.headers:
                response.set_data("changed")
            return response

        answers = [site.ask(), site.ask(x_change="1"), site.ask()]
        assert [answer.text for answer in answers] == ["page 1", "changed", "page 1"]
        assert [answer.headers["Content-Length"] for answer in answers] == ["6", "7", "6"]

    @pytest.mark.parametrize("kind", ["parts", "generator", "text"])
    def test_a_body_may_become_something_else(self, kind):
        site = Site()
        bodies = {
            "parts": lambda: [b"a", b"b"],
            "generator": lambda: (part for part in (b"a", b"b")),
            "text": lambda: ["ab"],
        }

        @site.app.after_request
        def change(response):
            if "X-Change" in request.headers:
                response.response = bodies[kind]()
                response.headers["Content-Length"] = "2"
            return response

        site.app.wsgi_app = validator(site.app.wsgi_app)
        for fields, text in (({}, "page 1"), ({"x_change": "1"}, "ab"), ({}, "page 1")):
            with site.ask(**fields) as answer:
                assert answer.text == text

    def test_a_status_that_is_changed_is_this_requests(self):
        site = Site()

        @site.app.after_request
        def change(response):
            if "X-Change" in request.headers:
                response.status_code = int(request.headers["X-Change"])
            return response

        site.ask()
        for status in (203, 304, 204, 500):
            answer = site.ask(x_change=str(status))
            assert answer.status_code == status
            assert ("Content-Length" in answer.headers) is (status not in (204, 304)), status
        assert site.ask().status_code == 200

    def test_what_is_to_be_done_at_the_end_is_done_once(self):
        site, closed = Site(), []

        @site.app.after_request
        def later(response):
            response.call_on_close(lambda: closed.append(1))
            return response

        for number in range(1, 4):
            with site.ask():
                pass
            assert len(closed) == number

    def test_a_location_is_completed_as_ever(self):
        site = Site()
        site.app.response_class = type("Mine", (Response,), {"autocorrect_location_header": True})

        @site.app.after_request
        def there(response):
            response.headers["Location"] = "/there"
            return response

        assert [site.ask().headers["Location"] for _ in range(2)] == ["http://localhost/there"] * 2

    def test_head_has_no_body(self):
        site = Site(methods=("GET", "HEAD"))
        site.ask()
        answer = site.app.test_client().head("/")
        assert (answer.data, answer.headers["Content-Length"], answer.headers["X-Cache"]) == (b"", "6", "HIT")


class TestKeys:
    """What tells pages apart."""

    def test_vary_is_learned(self):
        def view():
            return request.headers.get("Accept-Language", ""), {"Vary": "Accept-Language"}

        site = Site(view)
        wanted = ["de", "fr", "de", "fr"]
        assert [site.ask(accept_language=each).text for each in wanted] == wanted
        assert site.ask(accept_language="de").headers["X-Cache"] == "HIT"

    def test_vary_is_said(self):
        site = Site(lambda: request.headers.get("X-Tenant", ""), vary=["X-Tenant"])
        answers = [site.ask(x_tenant=name) for name in ("a", "b", "a")]
        assert [answer.text for answer in answers] == ["a", "b", "a"]
        assert results(answers) == ["MISS", "MISS", "HIT"]
        assert [answer.headers["Vary"] for answer in answers] == ["x-tenant"] * 3

    @pytest.mark.parametrize("cached", [True, False])
    def test_a_language_that_was_chosen_before_the_view_tells_pages_apart(self, cached):
        site = Site(lambda: (g.language, {"Vary": "Accept"}))

        @site.app.before_request
        def choose():
            g.language = request.accept_languages.best_match(["de", "fr"])

        fields = {} if cached else {"cookie": "sid=1"}
        answers = [site.ask(accept_language=language, **fields) for language in ("de", "fr", "de", "fr")]
        assert [answer.text for answer in answers] == ["de", "fr"] * 2
        assert {answer.headers["Vary"] for answer in answers} == {"Accept, Accept-Language"}
        assert results(answers) == (["MISS"] * 2 + ["HIT"] * 2 if cached else ["BYPASS"] * 4)

    def test_an_error_page_by_what_its_visitor_accepts(self):
        site = Site(lambda: abort(404), statuses={404: "1m"})
        site.app.register_error_handler(404, lambda error: (str(request.accept_mimetypes), 404))
        assert [site.ask(accept=kind).text for kind in ("text/a", "text/b")] == ["text/a", "text/b"]

    def test_a_callable_says_it_in_place_of_path_and_query(self):
        site = Site(rule="/<int:n>", make_cache_key=lambda n: n % 2)
        answers = [site.ask(path) for path in ("/1", "/3?a=1", "/2", "/4")]
        assert results(answers) == ["MISS", "HIT", "MISS", "HIT"]

    def test_the_key_of_a_page_removes_it(self):
        site = Site()
        site.ask()
        with site.app.test_request_context("/"):
            key = site.page.make_cache_key()
            assert key == site.page.make_cache_key(path="/")
            assert key != site.page.make_cache_key(path="/", query_args={"a": 1})
            assert site.cache.region().delete(key) is Outcome.DONE
        assert site.ask().headers["X-Cache"] == "MISS"

    def test_delete_cached_of_a_path(self):
        site = Site(rule="/<int:n>")
        for path in ("/1", "/1?a=1", "/2"):
            site.ask(path)
        with site.app.app_context():
            assert site.cache.delete_cached(site.page, path="/1", query_args={"a": 1}) is Outcome.DONE
        assert results(site.ask(path) for path in ("/1", "/1?a=1", "/2")) == ["MISS", "MISS", "HIT"]

    def test_tags_of_the_request(self):
        site = Site(rule="/<int:n>", tags=lambda request: [f"page:{request.view_args['n']}"])
        site.ask("/1"), site.ask("/2")
        with site.app.app_context():
            site.cache.region().invalidate_tags("page:1")
        assert results(site.ask(path) for path in ("/1", "/2")) == ["MISS", "HIT"]

    def test_the_source_is_part_of_the_key_if_it_is_wanted(self):
        def first():
            return "first"

        def second():
            return "second"

        first.__qualname__ = second.__qualname__ = "page"
        texts = []
        for view in (first, second):
            cache, app = CacheKit(), Flask("pages")
            app.add_url_rule("/", "page", cache.cached(source_check=True)(view))
            cache.init_app(app)
            texts.append(app.test_client().get("/").text)
        assert texts == ["first", "second"]


class TestUnsafeMethods:
    """A request that changes something outdates what is kept of its URL."""

    def test_of_a_view_of_its_own(self):
        site = Site(methods=["GET"])
        site.app.add_url_rule("/", "change", lambda: "changed", methods=["PUT"])
        site.app.add_url_rule("/fail", "fail", lambda: ("no", 400), methods=["PUT"])
        site.ask()
        assert site.ask(method="PUT").status_code == 200
        assert site.ask().headers["X-Cache"] == "MISS"
        assert site.ask("/fail", method="PUT").status_code == 400
        assert site.ask().headers["X-Cache"] == "HIT"

    def test_and_of_where_the_response_leads(self):
        site = Site(rule="/artículo/1", methods=["GET"])
        site.app.add_url_rule("/new", "new", lambda: ("", 201, {"Location": "/art%C3%ADculo/1"}), methods=["POST"])
        site.ask("/artículo/1")
        assert site.ask("/artículo/1").headers["X-Cache"] == "HIT"
        site.ask("/new", method="POST")
        assert site.ask("/artículo/1").headers["X-Cache"] == "MISS"

    def test_one_that_failed_outdates_nothing(self):
        site = Site(lambda: ("no", 500) if request.method == "POST" else "yes")
        site.ask(), site.ask(method="POST")
        assert site.ask().headers["X-Cache"] == "HIT"

    @pytest.mark.parametrize("body", ["", "whole", "stream"])
    def test_what_is_committed_at_the_end_of_the_request(self, body):
        """A visitor who comes before that is given what was, and nobody after it."""
        site, stored, seen = Site(lambda: stored["value"], methods=["GET"]), {"value": "old"}, []

        def commit(error=None):
            if request.method == "PUT":
                seen.append(site.ask().text)
                stored["value"] = "new"

        def parts():
            yield from "ab"
            commit()

        def change():
            if body == "stream":
                return Response(stream_with_context(parts()))
            return body, 200 if body else 204

        site.app.add_url_rule("/", "change", change, methods=["PUT"])
        if body != "stream":
            site.app.teardown_request(commit)
        site.ask()
        answer = site.ask(method="PUT")
        assert answer.data == {"stream": b"ab", "whole": b"whole", "": b""}[body]
        answer.close()
        assert (seen, site.ask().text) == (["old"], "new")

    def test_a_client_hears_of_it_when_it_is_so(self):
        """Also one that reads the answer and asks at once, before its connection is closed."""
        site, stored = Site(lambda: stored["value"], methods=["GET"]), {"value": "old"}

        def change():
            g.changed = True
            return "changed"

        def commit(error):
            if g.get("changed"):
                site.ask()
                stored["value"] = "new"

        site.app.add_url_rule("/", "change", change, methods=["PUT"])
        site.app.teardown_appcontext(commit)
        environ = EnvironBuilder(method="PUT").get_environ()
        body = site.app.wsgi_app(environ, lambda status, fields, exc_info=None: lambda data: None)
        assert b"".join(body) == b"changed"
        assert site.ask().text == "new"
        body.close()

    @pytest.mark.parametrize("inside", [True, False])
    def test_behind_a_proxy_whose_fields_are_read_inside_or_outside(self, inside):
        site = Site(inside=inside)
        said = {"x_forwarded_host": "shop.test", "x_forwarded_proto": "https"}
        answers = [site.ask(method=method, **said) for method in ("GET", "GET", "POST", "GET")]
        assert results(answers) == ["MISS", "HIT", "BYPASS", "MISS"]
        assert results([site.ask()]) == ["MISS"]

    def test_where_the_application_is_mounted(self):
        site = Site()
        outer = Client(DispatcherMiddleware(Flask("outer"), {"/in": site.app}))
        assert results(outer.open("/in/", method=method) for method in ("GET", "GET", "POST", "GET")) == [
            "MISS", "HIT", "BYPASS", "MISS",
        ]  # fmt: skip


class TestUsers:
    """Pages of one visitor, where the view knows whose they are."""

    @staticmethod
    def by_token(request):
        return request.headers.get("Authorization")

    def test_each_has_a_page_of_their_own(self):
        site = Site(lambda: request.headers.get("Authorization", "nobody"), per_user=self.by_token)
        for expected in ("MISS", "HIT"):
            for name in ("alice", "bob"):
                answer = site.ask(authorization=name)
                assert (answer.text, answer.headers["X-Cache"]) == (name, expected)
                assert answer.headers["Cache-Control"] == "private, no-cache"
            assert site.ask().headers["X-Cache"] == expected

    def test_a_page_for_nobody_is_private_too(self):
        site = Site(per_user=self.by_token, client_ttl="30s")
        answers = [site.ask(), site.ask(), site.ask(authorization="alice")]
        assert results(answers) == ["MISS", "HIT", "MISS"]
        assert {answer.headers["Cache-Control"] for answer in answers} == {"private, max-age=30"}

    def test_cookies_without_a_user_go_around(self):
        site = Site(per_user=self.by_token)
        assert results(site.ask(cookie="a=b") for _ in range(2)) == ["BYPASS", "BYPASS"]

    async def name(self, request):
        return session.get("user")

    def test_an_empty_name_is_nobodys(self):
        site = Site(
            lambda: request.headers["Authorization"], per_user=lambda request: request.headers.get("X-User", "")
        )
        answers = [site.ask(authorization=name) for name in ("alice", "bob", "alice")]
        assert [answer.text for answer in answers] == ["alice", "bob", "alice"]
        assert results(answers) == ["BYPASS"] * 3

    def test_by_the_session_and_async(self):
        site = Site(lambda: session.get("user", "nobody"), per_user=self.name)
        site.app.add_url_rule("/in/<user>", "login", lambda user: session.update(user=user) or "in")
        clients = {name: site.app.test_client() for name in ("alice", "bob")}
        for name, client in clients.items():
            client.get(f"/in/{name}")
        for expected in ("MISS", "HIT"):
            for name, client in clients.items():
                answer = client.get("/")
                assert (answer.text, answer.headers["X-Cache"]) == (name, expected)
                assert "Cookie" in answer.headers["Vary"]

    def test_who_shows_nothing_is_not_personal_by_being_asked_for(self):
        site = Site(per_user=self.name)
        answers = [site.ask() for _ in range(2)]
        assert results(answers) == ["MISS", "HIT"]

    def test_a_session_that_the_page_changes_is_not_kept(self):
        def view():
            session["seen"] = session.get("seen", 0) + 1
            return str(session["seen"])

        site = Site(view, per_user=lambda request: "alice")
        assert results(site.ask() for _ in range(2)) == ["BYPASS", "BYPASS"]

    def test_something_else_than_a_name_is_an_error(self):
        site = Site(per_user=lambda request: 7)
        site.app.testing = True
        with pytest.raises(TypeError, match="per_user= must give a str"):
            site.ask()


class TestErrors:
    """What is not the page."""

    def test_are_kept_if_they_are_listed(self, clock):
        site = Site(lambda: abort(404), statuses={404: "5s"})
        answers = [site.ask() for _ in range(2)]
        assert results(answers) == ["MISS", "HIT"]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert "Not Found" in answers[1].text
        clock.advance("6s")
        assert site.ask().headers["X-Cache"] == "MISS"

    def test_are_shown_as_the_application_shows_them(self):
        site = Site(lambda: abort(404), statuses={404: "5s"})
        site.app.register_error_handler(404, lambda error: ("mine", 404))
        assert [site.ask().text for _ in range(2)] == ["mine", "mine"]

    @pytest.mark.parametrize("fail", [lambda: abort(503), lambda: ("down", 500), lambda: 1 / 0], ids="abc")
    def test_a_stale_page_stands_in_for_a_server_error(self, clock, fail):
        site = Site(profile="stale")
        site.ask()
        clock.advance("61s")
        site.view = fail
        answer = site.ask()
        assert (answer.status_code, answer.text, answer.headers["X-Cache"]) == (200, "page 1", "STALE")
        assert (answer.headers["Age"], answer.headers["Cache-Status"]) == ("61", "cachekit; hit; ttl=-1")
        assert site.runs == 2

    def test_but_not_for_404_nor_where_it_is_forbidden(self, clock):
        site = Site(lambda: ("x", {"Cache-Control": "max-age=60, must-revalidate"}), profile="stale")
        site.ask()
        clock.advance("61s")
        site.view = lambda: ("down", 500)
        assert site.ask().status_code == 500
        site = Site(profile="stale", version=2)
        site.ask()
        clock.advance("61s")
        site.view = lambda: abort(404)
        assert site.ask().status_code == 404

    @pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=1", "stale-if-error=30"])
    def test_not_where_a_response_with_a_timeout_forbids_it(self, clock, said):
        site = Site(lambda: CachedResponse(make_response("x", {"Cache-Control": said}), timeout=5), profile="stale")
        assert results([site.ask(), site.ask()]) == ["MISS", "HIT"]
        site.view = lambda: abort(500)
        clock.advance("6s")
        assert site.ask().status_code == (200 if said == "stale-if-error=30" else 500)
        clock.advance("30s")
        assert site.ask().status_code == 500

    def test_an_exception_reaches_the_application(self):
        site = Site(lambda: 1 / 0)
        site.app.register_error_handler(ZeroDivisionError, lambda error: ("handled", 418))
        assert [site.ask().status_code for _ in range(2)] == [418, 418]


class TestBehind:
    """A stale page is given at once, and computed anew in a request of its own."""

    def stale(self, clock, prepare=lambda app: None, **options):
        site = Site(profile="behind", **options)
        prepare(site.app)
        site.ask()
        clock.advance("61s")
        return site

    def test_the_next_visitor_gets_the_new_page(self, clock):
        site = self.stale(clock)
        answer = site.ask()
        assert (answer.text, answer.headers["X-Cache"]) == ("page 1", "STALE")
        site.settled()
        answer = site.ask()
        assert (answer.text, answer.headers["X-Cache"], site.runs) == ("page 2", "HIT", 2)

    def test_it_is_a_request_of_its_own_with_all_that_a_request_has(self, clock):
        steps, contexts, go = [], [], threading.Event()

        def before():
            steps.append("before")
            contexts.append(g._get_current_object())
            g.name = f"opened {len(contexts)}"

        def prepare(app):
            app.before_request(before)
            app.teardown_request(lambda error: steps.append("teardown"))
            app.teardown_appcontext(lambda error: steps.append("closed"))

        site = self.stale(clock, prepare)
        steps.clear(), contexts.clear()
        site.view = lambda: go.wait(10) and g.name
        assert site.ask().text == "page 1"
        go.set()
        site.settled()
        assert sorted(steps) == ["before", "before", "closed", "closed", "teardown", "teardown"]
        assert contexts[0] is not contexts[1]
        assert site.ask().text in ("opened 1", "opened 2")  # whichever began first

    def test_its_conditions_and_its_body_are_not_those_of_the_visitor(self, clock):
        site = self.stale(clock)
        seen = []
        site.view = lambda: seen.append((request.headers.get("If-None-Match"), request.get_data())) or "new"
        assert site.ask(if_none_match="*").status_code == 304
        site.settled()
        assert (seen, site.ask().text) == ([(None, b"")], "new")

    def test_nothing_that_the_client_keeps_of_the_visitor_s_request_is_touched(self, clock):
        site, seen = self.stale(clock), []
        site.view = lambda: seen.append("werkzeug.debug.preserve_context" in request.environ) or "new"
        with site.app.test_client() as visitor:  # which keeps its context
            visitor.get("/")
            site.settled()
        assert (seen, site.ask().text) == ([False], "new")

    def test_what_comes_before_the_view_may_refuse_it(self, clock):
        refused, main = [], threading.current_thread()

        def guard():
            if threading.current_thread() is not main:
                refused.append(1)
                return "no", 401
            return None

        site = self.stale(clock, lambda app: app.before_request(guard))
        site.ask()
        site.settled()
        assert (refused, site.runs) == ([1], 1)
        assert site.ask().headers["X-Cache"] == "STALE"

    @pytest.mark.parametrize("by_then", ["alice", "bob"])
    def test_a_page_of_one_visitor_is_computed_for_that_one(self, clock, by_then):
        asked = iter(["alice", "alice", by_then, "alice"])

        def user(request):
            g.user = next(asked)
            return g.user

        site = self.stale(clock, per_user=user)
        site.view = lambda: f"for {g.user}"
        assert site.ask().text == "page 1"
        site.settled()
        assert site.ask().text == ("for alice" if by_then == "alice" else "page 1")

    def test_a_page_is_computed_in_the_language_of_who_was_answered(self, clock):
        site = Site(lambda: f"{request.accept_languages} {site.runs}", profile="behind")
        for language in ("de", "fr"):
            site.ask(accept_language=language)
        clock.advance("61s")
        for language in ("de", "fr"):
            assert site.ask(accept_language=language).headers["X-Cache"] == "STALE"
            site.settled()
        answers = [site.ask(accept_language=language) for language in ("de", "fr")]
        assert results(answers) == ["HIT", "HIT"]
        assert [answer.text[:2] for answer in answers] == ["de", "fr"]

    def test_a_failure_behind_leaves_the_stale_page(self, clock):
        site = self.stale(clock)
        site.view = lambda: 1 / 0
        for _ in range(2):
            assert site.ask().text == "page 1"
            site.settled()


def test_pages_lie_on_the_server_and_etags_are_the_same_in_two_services():
    with start_server("valkey") as server:
        backend = {"url": server.url, "budget": "10s", "adaptive": False}  # the machine may be busy
        answers = []
        for _ in range(2):
            config = {"namespace": "two", "backends": {"default": backend}}
            cache, app = CacheKit(config=config), Flask("pages")
            app.add_url_rule("/", "index", cache.cached()(lambda: "the same"))
            cache.init_app(app)
            answers.append(app.test_client().get("/"))
            app.extensions["cachekit"].service().close()
        assert results(answers) == ["MISS", "HIT"]
        assert answers[0].headers["ETag"] == answers[1].headers["ETag"]
