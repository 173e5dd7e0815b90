"""Sealing is AES-256-GCM, signing HMAC-SHA256 and deriving HKDF-SHA256: others' test vectors through our code."""

import hashlib
import hmac
import itertools
import json
import pathlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from cachekit.codec import seal
from cachekit.codec.envelope import Damaged, Header, pack, unpack
from cachekit.codec.keyring import Keyring, Root, Use, derive
from cachekit.codec.seal import Locks, Sealer, Signer
from cachekit.config.spec import KeySpec

FOLDER = pathlib.Path(__file__).parent / "vectors"


def vectors(name: str) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = json.loads((FOLDER / name).read_text())["tests"]
    return tests


class Injected(Keyring):
    """Keys that are not derived, so that vectors can say them. All else is the code that services run."""

    def __init__(self, key: bytes, use: Use) -> None:
        self.key = key
        super().__init__(KeySpec(master_key=hashlib.sha256(use.encode()).hexdigest()), "shop")

    def derive(self, root: Root, use: Use, region: str, tenant: str) -> bytes:
        return self.key


def fields(test: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(test[name] or "") for name in ("key", "iv", "aad", "msg", "ct", "tag"))


GCM = [
    *[pytest.param(test, test["result"] == "valid", id=f"wycheproof-{test['tcId']}")
      for test in vectors("aes_gcm_wycheproof.json")],
    *[pytest.param(test, test["msg"] is not None, id=f"cavp-{number}")
      for number, test in enumerate(vectors("aes_gcm_cavp.json"))],
]  # fmt: skip


def test_the_subset_is_the_one_that_its_head_says() -> None:
    wycheproof, cavp = vectors("aes_gcm_wycheproof.json"), vectors("aes_gcm_cavp.json")
    assert (len(wycheproof), len(cavp)) == (66, 150)
    flags = {flag for test in wycheproof for flag in test["flags"]}
    assert flags == {"Ktv", "ModifiedTag", "Pseudorandom", "SpecialCase"}
    assert sum(test["result"] == "invalid" for test in wycheproof) == 27
    assert sum(test["msg"] is None for test in cavp) == 50


@pytest.mark.parametrize("where", ["in the core", "without"])
@pytest.mark.parametrize(("test", "good"), GCM)
def test_gcm(test: dict[str, Any], good: bool, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "without":  # which is cryptography's
        monkeypatch.setattr(seal, "core", None)
    elif seal.core is None:
        pytest.skip("there is no native core here")
    key, nonce, aad, message, ciphertext, tag = fields(test)
    sealer = Sealer(Injected(key, "seal"), "users", "")
    mark = sealer.key_id + nonce
    if good:
        assert sealer.close(mark, aad, message) == ciphertext + tag
        assert sealer.open(sealer.key_id, nonce, aad, ciphertext + tag) == message
    else:
        with pytest.raises(Damaged, match=r"^tampered$"):
            sealer.open(sealer.key_id, nonce, aad, ciphertext + tag)


def extract_and_expand(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, sections 2.2 and 2.3, word by word."""
    prk = hmac.digest(salt or bytes(32), secret, "sha256")
    made, block = b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([number]), "sha256")
        made += block
    return made[:length]


@pytest.mark.parametrize("test", vectors("hkdf_rfc5869.json"), ids=["1", "2", "3"])
def test_hkdf(test: dict[str, str]) -> None:
    secret, salt, info, made = (bytes.fromhex(test[name]) for name in ("ikm", "salt", "info", "okm"))
    assert extract_and_expand(secret, salt, info, int(test["l"])) == made


@pytest.mark.parametrize("context", [(), ("",), ("shop", "users", ""), ("é", "a" * 300, "x")], ids=["0", "1", "3", "x"])
@pytest.mark.parametrize("use", ["seal", "sign", "id", "names", "name root", "signing"])
def test_keys_are_derived_by_hkdf_with_the_use_and_all_of_the_context_as_its_info(
    use: str, context: tuple[str, ...]
) -> None:
    secret = bytes(range(32))
    info = b"cachekit 1"
    for part in (use, *context):
        info += len(part.encode()).to_bytes(4, "big") + part.encode()
    assert derive(secret, use, *context) == extract_and_expand(secret, b"", info, 32)


@pytest.mark.parametrize("test", vectors("hmac_rfc4231.json"), ids=[str(number) for number in range(1, 8)])
def test_hmac(test: dict[str, str]) -> None:
    """The primitive that a signer was given computes what the RFC says, also when it was keyed before."""
    key, message, expected = (bytes.fromhex(test[name]) for name in ("key", "msg", "md"))
    mac = Signer(Injected(key, "sign"), "users", "")._macs
    for keyed in (*mac.values(), HMAC(key, SHA256())):
        for _ in range(2):
            copy = keyed.copy()
            copy.update(message)
            assert copy.finalize()[: len(expected)] == expected


@pytest.mark.parametrize("test", vectors("hmac_rfc4231.json"), ids=[str(number) for number in range(1, 8)])
def test_a_signature_is_hmac_over_the_length_of_what_is_bound_what_is_bound_and_the_payload(
    test: dict[str, str],
) -> None:
    key, message = bytes.fromhex(test["key"]), bytes.fromhex(test["msg"])
    signer = Signer(Injected(key, "sign"), "users", "")
    for cut in range(len(message) + 1):
        bound, payload = message[:cut], message[cut:]
        tag = hmac.digest(key, str(cut).encode() + b":" + message, "sha256")[:16]
        assert signer.close(signer.mark(), bound, payload) == payload + tag
        assert signer.open(signer.key_id, b"", bound, payload + tag) == payload
        for other in (cut - 1, cut + 1):  # the same bytes, divided otherwise
            if 0 <= other <= len(message):
                with pytest.raises(Damaged, match="tampered"):
                    signer.open(signer.key_id, b"", message[:other], message[other:] + tag)


MASTER, OTHER = (hashlib.sha256(name).hexdigest() for name in (b"master", b"other"))
# Everything that separates keys, and pairs that would meet if parts ran into another.
NAMES = [("", "abc"), ("a", "bc"), ("ab", "c"), ("abc", ""), ("c", "ab"), ("abc", "abc"), ("a\0", "bc"), ("a", "\0bc")]


def test_each_part_of_the_context_makes_another_key() -> None:
    made = {}
    for master, use, namespace, (region, tenant) in itertools.product(
        (MASTER, OTHER), ("seal", "sign"), ("shop", "shopa", "sho"), [*NAMES, ("pa", "bc"), ("users", "t")]
    ):
        keyring = Keyring(KeySpec(master_key=master), namespace)
        made[master, use, namespace, region, tenant] = keyring.derive(keyring.present(use), use, region, tenant)
    assert len(set(made.values())) == len(made) == 120
    assert {len(key) for key in made.values()} == {32}
    for keyring in (Keyring(KeySpec(master_key=MASTER), "shop"), Keyring(KeySpec(master_key=MASTER), "shopa")):
        assert keyring.name_key not in made.values()


def test_length_prefixes_keep_the_parts_apart() -> None:
    assert derive(b"s" * 32, "ab", "c") != derive(b"s" * 32, "a", "bc") != derive(b"s" * 32, "abc")
    assert derive(b"s" * 32, "a", "b", "") != derive(b"s" * 32, "a", "b")


def test_uses_of_one_secret_have_nothing_in_common() -> None:
    """A signing key that equals the master key, say: what is told of one use helps with no other."""
    keyring = Keyring(KeySpec(master_key=MASTER, signing_key=MASTER, name_key=MASTER), "shop")
    secret = bytes.fromhex(MASTER)
    seal = keyring.derive(keyring.present("seal"), "seal", "users", "")
    sign = keyring.derive(keyring.present("sign"), "sign", "users", "")
    assert keyring.name_key is not None
    keys = [seal, sign, keyring.name_key, derive(secret, "signing"), derive(secret, "name root")]
    assert len(set(keys)) == len(keys)
    assert not any(key.startswith(keyring.present("seal").id) for key in (*keys, secret))


@pytest.mark.parametrize("use", ["seal", "sign"])
def test_entries_of_another_context_do_not_open(use: Use) -> None:
    """The key alone keeps them apart, even under one key of L2."""

    def locks(master: str = MASTER, namespace: str = "shop", region: str = "users") -> Locks:
        return Locks(Keyring(KeySpec(master_key=master), namespace), region, use)

    data = pack(Header(1, b"i" * 16, 1, 2, 3), b"\xc0", "key", locks().of("t"))
    assert unpack(data, "key", locks().of("t"))[1] == b"\xc0"
    others = {
        "namespace": locks(namespace="shoq").of("t"), "region": locks(region="user").of("t"),
        "tenant": locks().of("u"), "nobody": locks().of(""),
    }  # fmt: skip
    for lock in others.values():
        with pytest.raises(Damaged, match=r"^tampered$"):
            unpack(data, "key", lock)
    with pytest.raises(Damaged, match=r"^key$"):
        unpack(data, "key", locks(OTHER).of("t"))


@pytest.mark.parametrize("use", ["seal", "sign"])
@pytest.mark.parametrize("size", range(12))
def test_an_open_entry_is_called_so_however_short_it_is(use: Use, size: int) -> None:
    lock = Locks(Keyring(KeySpec(master_key=MASTER), "shop"), "users", use).of("")
    data = pack(Header(1, bytes(16), 1, 2, 3), b"p" * size, "key")
    with pytest.raises(Damaged) as caught:
        unpack(data, "key", lock)
    assert caught.value.reason == "unsealed"
