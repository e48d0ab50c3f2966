"""A fixture that several test files share: an object store."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[object]:
    """A ``buckets.Bucket``; its keys are in the environment while it runs."""
    pytest.importorskip("moto.server", reason="moto[server] is not installed: no S3 to test against")
    from buckets import KEYS, bucket

    with pytest.MonkeyPatch.context() as patch, bucket() as running:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield running
