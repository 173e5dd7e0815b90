"""Opening what lies under any key: whose it is, how it is closed, and what its first bytes tell."""

import pytest

from cachekit.codec.envelope import NEVER, SEALED, SIGNED, Damaged, Header, closed_by, pack
from cachekit.codec.keyring import Keyring
from cachekit.codec.opening import Opener, Place, place_of
from cachekit.codec.seal import Locks
from cachekit.config.spec import KeySpec

KEYS = KeySpec(master_key="0123456789abcdef" * 4, previous_keys=("fedcba9876543210" * 4,))  # type: ignore[arg-type]
D, T = "0" * 31 + "1", "0" * 31 + "2"
HEADER = Header(1, bytes(16), 1, 2, NEVER)


def tags(count: int) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((number.to_bytes(8, "big"), bytes(8)) for number in range(count))


@pytest.mark.parametrize(
    ("key", "place", "tenants"),
    [
        (f"ns:v:{{users:m.f:1:{D}}}", ("ns", "users", f"m.f:1:{D}"), [""]),
        (f"ns:v:{{users:m.f:1:{T}:{D}}}", ("ns", "users", f"m.f:1:{T}:{D}"), [T, ""]),
        (f"ns:v:{{users:m.f:{T}:{D}}}", ("ns", "users", f"m.f:{T}:{D}"), [T, ""]),  # a version that looks like one
        ("ns:v:{users:=a}", ("ns", "users", "=a"), [""]),
        (f"ns:v:{{users:{T}=a:b}}", ("ns", "users", f"{T}=a:b"), [T, ""]),
        (f"ns:v:{{users:{D}}}", ("ns", "users", D), [""]),
        (f"ns:v:{{users:{T}:{D}}}", ("ns", "users", f"{T}:{D}"), [T, ""]),
        ("ns:v:{users:=}\n}", ("ns", "users", "=}\n"), [""]),
    ],
)
def test_a_key_says_where_and_whose_an_entry_is(key: str, place: tuple[str, str, str], tenants: list[str]) -> None:
    found = place_of(key)
    assert found == Place(*place)
    assert found is not None
    assert found.tenants == tenants


@pytest.mark.parametrize("key", ["", "a", "ns:t:{_}:x", "ns:l:{users:=a}", "ns:v:{users}", "ns:v:{users:=a"])
def test_what_is_no_key_of_a_value_has_no_place(key: str) -> None:
    assert place_of(key) is None


@pytest.mark.parametrize("use", ["seal", "sign"])
@pytest.mark.parametrize("tenant", ["", T])
@pytest.mark.parametrize("count", [0, 200])
def test_an_entry_is_opened_by_its_key_alone(use: str, tenant: str, count: int) -> None:
    keyring = Keyring(KEYS, "ns")
    ident = f"m.f:1:{tenant}:{D}" if tenant else f"m.f:{T}:{D}"
    key = f"ns:v:{{users:{ident}}}"
    lock = Locks(keyring, "users", use).of(tenant)  # type: ignore[arg-type]
    data = pack(HEADER._replace(tags=tags(count)), b"payload", key, lock)
    header, payload, found = Opener(keyring).open(key, data)
    assert (payload, header.key_id, header.tags) == (b"payload", lock.key_id, tags(count))
    assert found is not None
    flag = SEALED if use == "seal" else SIGNED
    assert closed_by(data) == (flag, lock.key_id)
    assert closed_by(data[:512]) == (flag, b"" if count else lock.key_id)
    again = pack(header, bytes(payload), key, found)
    assert Opener(keyring).open(key, again).payload == b"payload"
    for place, reason in ((-1, "tampered"), (5, "stale_mark"), (10, "tampered")):
        broken = bytearray(data)
        broken[place] ^= 2
        with pytest.raises(Damaged, match=reason):
            Opener(keyring).open(key, bytes(broken))
    for other in (key.replace("users", "others"), key.replace("m.f", "m.g"), key.replace("ns", "sn", 1)):
        with pytest.raises(Damaged, match="tampered"):
            Opener(keyring).open(other, data)


def test_a_plain_entry_is_opened_as_one() -> None:
    opened = Opener(Keyring(KEYS, "ns")).open("ns:v:{users:=a}", pack(HEADER, b"payload", "ns:v:{users:=a}"))
    assert (bytes(opened.payload), opened.lock) == (b"payload", None)


def test_without_any_key_what_is_closed_cannot_be_opened() -> None:
    key = "ns:v:{users:=a}"
    data = pack(HEADER, b"payload", key, Locks(Keyring(KEYS, "ns"), "users", "seal").of(""))
    opener = Opener(Keyring(KeySpec(), "ns"))
    assert (opener.present("seal"), opener.present("sign")) == (b"", b"")
    with pytest.raises(Damaged, match="key"):
        opener.open(key, data)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"12", bytes(100), b"\xcaK\2" + bytes(100), b"\xcaK\1\1\x0c" + bytes(100)]
)
def test_other_bytes_are_closed_by_nothing(data: bytes) -> None:
    assert closed_by(data) is None


def test_ids_are_known_by_what_they_are_in_the_configuration() -> None:
    keyring = Keyring(KEYS, "ns")
    seal, sign = keyring.known("seal"), keyring.known("sign")
    assert list(seal.values()) == ["master_key", "previous_keys[0]"]
    assert list(sign.values()) == ["master_key, derived", "previous_keys[0], derived", "previous_keys[0]"]
    assert next(iter(seal)) == keyring.present("seal").id
    assert next(iter(sign)) == keyring.present("sign").id
    both = KeySpec(signing_key="0a1b2c3d4e5f6789" * 4, master_key=KEYS.master_key)  # type: ignore[arg-type]
    assert list(Keyring(both, "ns").known("sign").values()) == ["signing_key", "master_key, derived"]
    assert Keyring(KeySpec(), "ns").known("seal") == {}
