"""Paths to the scores; what is no answer is said in one line."""

from __future__ import annotations

import pytest

from study.auditing.scores import AnswerError, read_scores


@pytest.mark.parametrize(
    ("body", "path", "values", "names"),
    [
        (b"[0.25, 0.75]", "", (0.25, 0.75), ()),
        (b'{"released": [[1, 0]]}', "released.0", (1.0, 0.0), ()),
        (b'{"p": [{"s": [0.5, 0.5]}]}', "p.0.s", (0.5, 0.5), ()),
        (b'{"p": {"dog": 0.1, "cat": 0.9}}', "p", (0.9, 0.1), ("cat", "dog")),
        (b"[[1], [0.2, 0.8]]", "-1", (0.2, 0.8), ()),
    ],
)
def test_paths(body: bytes, path: str, values: tuple[float, ...], names: tuple[str, ...]) -> None:
    found = read_scores(body, path)
    assert found.values == values
    assert found.names == names


@pytest.mark.parametrize(
    ("text", "decimals"), [("[0.25, 0.7]", 2), ("[1, 0]", 0), ("[1e-7, 0.9]", 7), ("[1.50, 2E+3]", 2)]
)
def test_printed_digits(text: str, decimals: int) -> None:
    assert read_scores(text.encode(), "").decimals == decimals


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        (b"<html>Bad gateway</html>", "", "not JSON.*Bad gateway"),
        (b"", "", "not JSON"),
        (b"[0.1, NaN]", "", "NaN is no number"),
        (b"[0.1, Infinity]", "", "no number"),
        (b"[0.1, 1e999]", "", "no finite number"),
        (b'[0.1, "0.9"]', "", "no finite number"),
        (b"[0.1, " + b"9" * 400 + b"]", "", "no finite number"),
        (b"[0.1, true]", "", "no finite number"),
        (b"[0.1, null]", "", "no finite number"),
        (b"[0.1]", "", "two scores"),
        (b'{"a": 1}', "a", "two scores"),
        (b'{"a": [0.5, 0.5]}', "b", "nothing at 'b'"),
        (b"[[0.5, 0.5]]", "1", "nothing at '1'"),
        (b"[[0.5, 0.5]]", "x", "nothing at 'x'"),
        (b"3", "a", "nothing at 'a'"),
        (b"\xff\xfe\x00", "", "not JSON"),
        (b"[" * 100_000, "", "not JSON"),
    ],
)
def test_what_is_no_answer(body: bytes, path: str, message: str) -> None:
    with pytest.raises(AnswerError, match=message) as raised:
        read_scores(body, path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
