"""API keys are known by their hash; what is no list of them is one line that repeats no hash."""

from __future__ import annotations

import hashlib
import json

import pytest

from mipoison.config import ConfigError
from study.serving.api_keys import ApiKeys


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        f"anna:{sha('k1')},bert:{sha('k2')}",
        f" anna : {sha('k1').upper()} , bert:{sha('k2')}",
        json.dumps({"anna": sha("k1"), "bert": sha("k2")}),
    ],
)
def test_a_key_has_a_name(text: str) -> None:
    keys = ApiKeys.from_text(text)
    assert len(keys) == 2
    assert keys.name_of("k1") == "anna"
    assert keys.name_of("k2") == "bert"
    for wrong in ("", "k3", "K1", "k1 ", sha("k1"), "k" * 100_000, "\ud800"):
        assert keys.name_of(wrong) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1 to 64 letters"),
        ("{}", "names no key"),
        ("anna", "no SHA-256"),
        ("anna:hunter2", "no SHA-256"),
        (f"an na:{sha('k')}", "1 to 64 letters"),
        (f"a:{sha('k')},b:{sha('k')}", "two names"),
        (f"a:{sha('k')},a:{sha('l')}", "two keys"),
        (json.dumps({"a": 1}), "no SHA-256"),
        ('{"a": ', "malformed JSON"),
        (f'{{"a": "{sha("k")}", "a": "{sha("l")}"}}', "two keys"),
    ],
)
def test_what_is_no_list_of_keys(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        ApiKeys.from_text(text)
    assert "\n" not in str(caught.value)
    assert sha("k") not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("empty", ["", "\n", "\r\n"])
def test_the_hash_of_an_empty_key_is_refused(empty: str) -> None:
    for found in (sha(empty), sha(empty).upper()):
        with pytest.raises(ConfigError, match="KEY was unset") as caught:
            ApiKeys({"anna": sha("k1"), "bert": found})
        assert "\n" not in str(caught.value)
        assert found not in str(caught.value)


def test_no_key_is_nobodys() -> None:
    keys = ApiKeys({"anna": sha("k1")})
    keys._hashes["anna"] = hashlib.sha256(b"").digest()  # as if the check of the hashes had missed it
    assert keys.name_of("") is None
