"""The label beside a unit: JSON of a bounded size, or one line that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from study.serving.privacy_label import MAX_BYTES, read_label


def test_a_label_is_an_object(tmp_path: Path) -> None:
    assert read_label(str(tmp_path)) is None
    label = {"excess_leakage": 0.1, "name": "ä", "list": [1, None]}
    (tmp_path / "label.json").write_text(json.dumps(label, indent=4))
    found = read_label(str(tmp_path))
    assert found is not None
    assert json.loads(found) == label


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"a": NaN}', "no JSON"),
        (b"[" * 5000, "no JSON"),
        (b"[1]", "a list"),
        (b'{"a": "' + b"x" * MAX_BYTES + b'"}', "no label of at most"),
    ],
)
def test_what_is_no_label(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "label.json").write_bytes(data)
    with pytest.raises(ConfigError, match=said) as caught:
        read_label(str(tmp_path))
    assert "\n" not in str(caught.value)
