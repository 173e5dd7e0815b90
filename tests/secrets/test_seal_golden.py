"""Sealed and signed entries of today are read for ever, and their bytes are those of format 1.

A file is written once, by ``python tests/secrets/test_seal_golden.py``, which never touches one that exists. When one
of these tests fails, the format or the derivation of keys has changed: give it a new number, or take the change back.
"""

import hashlib
import pathlib
from typing import Any

import pytest

from cachekit.codec import seal
from cachekit.codec.codec import Codec
from cachekit.codec.envelope import NEVER, Damaged
from cachekit.codec.keyring import Keyring
from cachekit.codec.seal import Lock, Locks
from cachekit.config.spec import CodecSpec, KeySpec

FOLDER = pathlib.Path(__file__).parent / "golden"
MASTER, SIGNING, LATER = (hashlib.sha256(name).hexdigest() for name in (b"golden master", b"golden signing", b"later"))
KEY = "shop:v:{users:app.views.get_user:1:9f3c}"
NONCE = bytes(range(12))
TENANT = "0123456789abcdef0123456789abcdef"
VALUE = {"name": "Ada", "tags": ["a", "b"], "n": 7}
PLAIN: dict[str, Any] = {
    "id": b"0123456789abcdef", "created": 1_700_000_000_000, "soft": 1_700_000_300_000, "hard": 1_700_000_600_000,
}  # fmt: skip
FULL: dict[str, Any] = {
    **PLAIN, "hard": NEVER, "load_ms": 250, "negative": True, "region_stamp": b"regionst",
    "function_stamp": b"function",
    "tags": ((b"tag-one.", b"stamp-1."), (b"tag-two.", b"stamp-2.")), "etag": 'W/"abc"',
    "last_modified": "Mon, 23 Nov 2026 00:00:00 GMT", "fingerprint": b"fingerpr",
}  # fmt: skip
CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "sealed": ("seal", "", PLAIN), "sealed_full": ("seal", "", FULL), "sealed_tenant": ("seal", TENANT, PLAIN),
    "signed": ("sign", "", PLAIN), "signed_full": ("sign", "", FULL), "signed_tenant": ("sign", TENANT, PLAIN),
    "signed_own": ("own", "", PLAIN),
}  # fmt: skip


def lock(name: str, master: str = MASTER, previous: tuple[str, ...] = ()) -> Lock:
    use, tenant, _ = CASES[name]
    signing = SIGNING if use == "own" else None
    keys = KeySpec(master_key=master, previous_keys=previous, signing_key=signing)
    return Locks(Keyring(keys, "shop"), "users", "seal" if use == "seal" else "sign").of(tenant)


def written(name: str) -> bytes:
    return Codec(CodecSpec(compression="none")).dumps(VALUE, KEY, **CASES[name][2], lock=lock(name))


def golden(name: str) -> bytes:
    return (FOLDER / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_what_was_sealed_is_read(name: str) -> None:
    value, header = Codec(CodecSpec()).loads(golden(name), KEY, lock(name))
    assert value == VALUE
    assert header._asdict() == {**header._asdict(), **CASES[name][2]}


@pytest.mark.parametrize("name", [name for name in CASES if name != "signed_own"])
def test_what_was_sealed_is_read_under_a_later_key(name: str) -> None:
    assert Codec(CodecSpec()).loads(golden(name), KEY, lock(name, LATER, (MASTER,)))[0] == VALUE
    with pytest.raises(Damaged, match="key"):
        Codec(CodecSpec()).loads(golden(name), KEY, lock(name, LATER))


@pytest.mark.parametrize("name", CASES)
def test_the_same_value_nonce_and_key_make_the_same_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal.os, "urandom", lambda size: NONCE[:size])
    assert written(name) == golden(name)


@pytest.mark.parametrize("name", CASES)
def test_golden_entries_of_different_keys_have_nothing_in_common(name: str) -> None:
    for other in CASES:
        same = other.removesuffix("_full") == name.removesuffix("_full")
        if CASES[other][0] == CASES[name][0] and not same:
            with pytest.raises(Damaged, match="tampered"):
                Codec(CodecSpec()).loads(golden(name), KEY, lock(other))


def test_the_overhead_is_the_documented_one() -> None:
    payload = len(Codec(CodecSpec(compression="none")).dumps(VALUE, KEY, **PLAIN)) - 76
    assert {name: len(golden(name)) - payload for name in ("sealed", "signed")} == {"sealed": 100, "signed": 88}
    assert golden("sealed")[68:84] == lock("sealed").key_id + NONCE
    assert VALUE["name"].encode() in golden("signed")  # type: ignore[attr-defined]
    assert VALUE["name"].encode() not in golden("sealed")  # type: ignore[attr-defined]


if __name__ == "__main__":
    seal.os.urandom = lambda size: NONCE[:size]
    for case in CASES:
        file = FOLDER / f"{case}.bin"
        if not file.exists():
            file.write_bytes(written(case))
