"""Both readers of the protocol agree, whole or byte by byte; without hiredis the backend works all the same."""

import subprocess
import sys
import textwrap
from typing import Any

import pytest

from cachekit.backends.redis import resp
from cachekit.backends.redis.resp import PENDING, PlainReader, ProtocolError, ReplyError, is_push, new_reader, pack
from cachekit.testing.servers import Server

REPLIES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":0\r\n", 0),
    (b":-42\r\n", -42),
    (b"$-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$6\r\na\r\nb\x00\xff\r\n", b"a\r\nb\x00\xff"),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n$2\r\nab\r\n*1\r\n$-1\r\n", [1, b"ab", [None]]),
    (b"$70000\r\n" + b"x" * 70_000 + b"\r\n", b"x" * 70_000),
    # Version 3.
    (b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n", [b"invalidate", [b"a", b"b"]]),
    (b">2\r\n+invalidate\r\n_\r\n", [b"invalidate", None]),
    (b"%2\r\n+proto\r\n:3\r\n+modules\r\n*0\r\n", {b"proto": 3, b"modules": []}),
    (b"~2\r\n:1\r\n:2\r\n", [1, 2]),
    (b"_\r\n", None),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",-1.5\r\n", -1.5),
    (b",inf\r\n", float("inf")),
    (b"(123456789012345678901\r\n", b"123456789012345678901"),
    (b"=8\r\ntxt:a\r\nb\r\n", b"a\r\nb"),
]


@pytest.fixture(params=[new_reader, PlainReader], ids=["hiredis", "plain"])
def reader(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_the_quick_reader_is_there() -> None:
    assert type(new_reader()).__module__.startswith("hiredis")


@pytest.mark.parametrize(("data", "value"), REPLIES, ids=lambda part: repr(part)[:24])
def test_replies_are_read_whole_and_in_pieces(reader: Any, data: bytes, value: Any) -> None:
    reader.feed(data)
    assert reader.gets() == value
    assert reader.gets() is PENDING
    assert not reader.has_data()
    step = max(1, len(data) // 50)
    for start in range(0, len(data), step):
        assert reader.gets() is PENDING
        reader.feed(data[start : start + step])
    assert reader.gets() == value


def test_replies_that_come_together_are_read_one_by_one(reader: Any) -> None:
    reader.feed(b"".join(data for data, _ in REPLIES))
    for _, value in REPLIES:
        assert reader.has_data()
        assert reader.gets() == value
    assert not reader.has_data()


def test_an_error_is_an_object_with_its_code_also_inside_an_array(reader: Any) -> None:
    reader.feed(b"-WRONGTYPE Operation against\r\n*1\r\n-ERR inside\r\n")
    error = reader.gets()
    assert isinstance(error, ReplyError)
    assert (error.code, str(error)) == ("WRONGTYPE", "WRONGTYPE Operation against")
    assert isinstance(reader.gets()[0], ReplyError)


def test_what_the_server_says_of_its_own_accord_is_told_from_its_answers(reader: Any) -> None:
    reader.feed(b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n*2\r\n+invalidate\r\n*0\r\n+PONG\r\n>1\r\n+other\r\n")
    assert [is_push(reader.gets()) for _ in range(4)] == [True, False, False, True]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400\r\n", b"\x15\x03\x03", b"$x\r\n", b"*x\r\n", b":x\r\n", b">x\r\n", b"%x\r\n", b"~x\r\n",
        b"_x\r\n", b"#x\r\n", b",x\r\n", b"(x\r\n", b"=x\r\n", b"=4\r\nabcd\r\n", b"*1\r\nx", b"!3\r\nERR\r\n",
    ],
)  # fmt: skip
def test_what_is_not_the_protocol_is_said_so(reader: Any, data: bytes) -> None:
    reader.feed(data)
    with pytest.raises(ProtocolError):
        reader.gets()


@pytest.mark.parametrize(
    "words",
    [("GET", "key"), ("SET", "Straße 東京", b"\x00\r\n\xff", "PX", 5), ("X", -1, b"")],
)
def test_commands_are_packed_alike_with_and_without_hiredis(
    words: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = pack(words)
    monkeypatch.setattr(resp, "hiredis", None)
    assert pack(words) == quick
    reader = PlainReader()
    reader.feed(quick)
    assert reader.gets() == [word if isinstance(word, bytes) else str(word).encode() for word in words]


WITHOUT = """
    import sys
    sys.modules["hiredis"] = None
    import asyncio
    from cachekit.backends.redis import open_redis, resp
    from cachekit.config.spec import BackendSpec

    assert resp.hiredis is None
    faces, key, large = open_redis(BackendSpec(url=sys.argv[1])), "test:v:{plain:1}", b"x" * 300_000
    sync, t = faces.sync, {"budget": 5.0}
    sync.invalidate([key], **t)
    assert sync.get_or_lease(key, b"t" * 16, 5000, **t).kind == "held"
    assert sync.store(key, large, 5000, b"t" * 16, **t) is True
    assert sync.get(key, **t) == large

    async def main():
        assert await faces.aio.get(key, **t) == large
        assert await faces.aio.get_many([key, "test:v:{plain:2}"], **t) == [large, None]
        await faces.aio.invalidate([key], **t)
        assert await faces.aio.incr(key, 2, 5000, **t) == 2

    asyncio.run(main())
    sync.close()
    print("done")
"""


@pytest.mark.server
def test_without_hiredis_both_faces_work(cachekit_server: Server) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(WITHOUT), cachekit_server.url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.strip() == "done", run.stderr
