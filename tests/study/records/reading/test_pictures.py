"""Pictures of a study: uint8 images of one shape, no objects, no more than is kept of a trial."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.records.reading import Unreadable
from study.records.reading import pictures as reading
from study.records.reading.pictures import archive_of, check_pictures, episode_of, pictures_of
from study.records.schema import episode_schema

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)


def archive(**arrays: Any) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def test_an_archive_comes_back() -> None:
    found = archive_of(archive(truth=IMAGES, passive=IMAGES[::-1]))
    assert found["truth"].tolist() == IMAGES.tolist()
    assert found["passive"].tolist() == IMAGES[::-1].tolist()


@pytest.mark.parametrize(
    "images",
    [IMAGES.astype(float), IMAGES[0], IMAGES[:0], IMAGES[:, :2], np.array([{}], dtype=object)],
    ids=["floats", "one", "none", "two channels", "objects"],
)
def test_what_is_no_picture(images: Any) -> None:
    with pytest.raises(Unreadable):
        archive_of(archive(truth=images))
    with pytest.raises(Unreadable):
        check_pictures(images)


def test_several_shapes_and_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreadable, match="several shapes"):
        archive_of(archive(truth=IMAGES, passive=IMAGES[:1]))
    monkeypatch.setattr(reading, "MAX_BYTES", 100)
    with pytest.raises(Unreadable, match="at most 100 are read"):
        archive_of(archive(truth=IMAGES))


@pytest.mark.parametrize("shape", [[2, 3, 2, 2], [2, 3, 2, 3], [24], [2, 3, -2, -2], None])
def test_a_table_of_pictures(shape: list[int] | None) -> None:
    columns = {"trial": ["t"], "attack": ["truth"], "pixels": [IMAGES.tobytes()]}
    shapes = pa.array([shape], pa.list_(pa.int64()))
    sink = io.BytesIO()
    pq.write_table(pa.table(columns | {"shape": shapes}), sink)
    if shape == list(IMAGES.shape):
        assert pictures_of(sink.getvalue())["t"]["truth"].tolist() == IMAGES.tolist()
    else:
        with pytest.raises(Unreadable):
            pictures_of(sink.getvalue())


def test_a_finished_episode() -> None:
    schema = episode_schema()
    record, picture = episode_of({"record": {"status": "ok", "seed": 1}, "picture": IMAGES.tolist()}, schema)
    assert record == {"status": "ok", "seed": 1}
    assert picture.tolist() == IMAGES.tolist()
    for value in (
        {"record": {"status": "failed"}, "picture": IMAGES.tolist()},
        {"record": {"status": "ok", "seed": True}, "picture": IMAGES.tolist()},
        {"record": {"status": "ok"}, "picture": [[300]]},
        {"record": {"status": "ok"}},
        [],
    ):
        with pytest.raises(Unreadable):
            episode_of(value, schema)
