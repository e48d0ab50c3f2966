"""The artifact cache: an artifact is made once, and is made again if its file was changed."""

import hashlib
import json
import logging
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

import mipoison.storage.artifacts as artifacts
from mipoison.storage.artifacts import ArtifactStore, source_fingerprint
from mipoison.storage.files import Storage

SPEC = {"width": 3, "lr": 0.5}


def value() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(7)}


class Maker:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        return value()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(Storage(tmp_path))


def path_of(store: ArtifactStore, kind: str = "model", spec: dict | None = None) -> Path:
    path = store.storage.local_path(store.name(kind, SPEC if spec is None else spec))
    assert path is not None
    return path


def assert_value(got: dict[str, Tensor]) -> None:
    assert set(got) == set(value())
    assert all(torch.equal(got[k], v) and got[k].dtype == v.dtype for k, v in value().items())


def test_made_once_then_reused(store: ArtifactStore) -> None:
    make = Maker()
    for _ in range(3):
        assert_value(store.tensors("model", SPEC, make))
    assert (make.calls, store.made, store.reused) == (1, 1, 2)
    other = ArtifactStore(store.storage)
    assert_value(other.tensors("model", SPEC, make))
    assert (make.calls, other.made, other.reused) == (1, 0, 1)


def test_a_second_process_reuses(store: ArtifactStore) -> None:
    store.tensors("model", SPEC, value)
    code = (
        "import sys, json; from mipoison.storage.artifacts import ArtifactStore\n"
        "from mipoison.storage.files import Storage\n"
        "store = ArtifactStore(Storage(sys.argv[1]))\n"
        "got = store.tensors('model', json.loads(sys.argv[2]), lambda: sys.exit('made again'))\n"
        "print(store.made, store.reused, float(got['weight'].sum()))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, store.storage.root, json.dumps(SPEC)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert out.stdout.split() == ["0", "1", "15.0"]


def test_the_name_depends_on_kind_spec_and_source(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [store.name("model", SPEC), store.name("other", SPEC), store.name("model", SPEC | {"width": 4})]
    assert store.name("model", dict(reversed(SPEC.items()))) == names[0]
    monkeypatch.setattr(artifacts, "source_fingerprint", lambda: "other code")
    names.append(store.name("model", SPEC))
    assert len(set(names)) == 4
    assert all(n.startswith("artifacts/") and n.count("/") == 1 for n in names)


def test_a_spec_cannot_stand_in_for_kind_or_source(store: ArtifactStore) -> None:
    """Settings that happen to be called ``source`` must not hide a change of the code."""
    assert store.name("model", {"source": "x"}) != store.name("model", {"source": "y"})
    with pytest.MonkeyPatch.context() as patch:
        before = store.name("model", {"source": "x"})
        patch.setattr(artifacts, "source_fingerprint", lambda: "other code")
        assert store.name("model", {"source": "x"}) != before


def test_the_source_fingerprint_covers_every_file() -> None:
    root = Path(artifacts.__file__).parents[1]
    h = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        h.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    assert source_fingerprint.__wrapped__() == h.hexdigest()[:16]


def damaged(data: bytes) -> list[bytes]:
    line = data.index(b"\n") + 1
    flipped = bytearray(data)
    flipped[-10] ^= 1
    return [
        b"",
        data[: line - 1],
        data[:line],
        data[:-1],
        data[: len(data) // 2],
        data + b"\0",
        bytes(flipped),
        b"0" * 64 + data[64:],
        data[line:],
        b"\xff" * 200,
        b"\n" * 5,
    ]


@pytest.mark.parametrize("case", range(11))
def test_a_damaged_file_is_rebuilt_not_loaded(
    store: ArtifactStore, case: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    store.tensors("model", SPEC, make)
    path = path_of(store)
    good = path.read_bytes()
    path.write_bytes(damaged(good)[case])

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a damaged file was loaded")

    again = ArtifactStore(store.storage)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(safetensors.torch, "load", refuse)
        assert_value(again.tensors("model", SPEC, make))
    assert (make.calls, again.made, again.reused) == (2, 1, 0)
    assert "does not match its hash" in caplog.text
    assert path.read_bytes() == good


class Payload:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_malicious_file_with_a_right_hash_is_not_executed(
    store: ArtifactStore, tmp_path: Path, form: str
) -> None:
    import io

    marker = tmp_path / "executed"
    buffer = io.BytesIO()
    if form == "pickle":
        pickle.dump({"weight": Payload(marker)}, buffer, protocol=2)
    else:
        torch.save({"weight": Payload(marker)}, buffer)
    payload = buffer.getvalue()
    path = path_of(store)
    path.parent.mkdir(parents=True)
    path.write_bytes(hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    make = Maker()
    assert_value(store.tensors("model", SPEC, make))
    assert make.calls == 1
    assert store.find_json("model", SPEC) is None  # tensors are no JSON
    assert not marker.exists()


def test_what_is_stored_is_detached_and_on_the_cpu(store: ArtifactStore) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    made = store.tensors("model", SPEC, lambda: {"weight": parameter})
    loaded = store.tensors("model", SPEC, value)
    for got in (made, loaded):
        assert not got["weight"].requires_grad
        assert torch.equal(got["weight"], torch.ones(2))


def test_a_failing_maker_stores_nothing(store: ArtifactStore) -> None:
    with pytest.raises(ZeroDivisionError):
        store.tensors("model", SPEC, lambda: {"weight": torch.ones(1) * (1 // 0)})
    assert store.made == 0
    assert not path_of(store).exists()


def test_plain_values(store: ArtifactStore) -> None:
    assert store.find_json("record", SPEC) is None
    record = {"a": None, "b": [1, 2.5, "x"], "c": True}
    store.put_json("record", SPEC, record)
    assert store.find_json("record", SPEC) == record
    assert (store.made, store.reused) == (1, 1)
    path = path_of(store, "record")
    path.write_bytes(path.read_bytes()[:-1])
    assert store.find_json("record", SPEC) is None
    with pytest.raises(ValueError, match="JSON"):
        store.put_json("record", SPEC, {"a": math.nan})


def test_state_dicts_survive_bit_for_bit(store: ArtifactStore, make_decoder) -> None:
    net = make_decoder()
    for _ in range(2):
        got = store.tensors("decoder", {}, net.state_dict)
        assert list(got) == list(net.state_dict())
        assert all(torch.equal(got[k], v) for k, v in net.state_dict().items())
