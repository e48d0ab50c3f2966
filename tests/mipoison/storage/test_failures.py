"""A storage failure is found behind other errors, and what may pass is tried again."""

from __future__ import annotations

from mipoison.storage.files import StorageError, storage_failure


def test_a_failure_is_found_behind_other_errors() -> None:
    def chain(error: BaseException) -> BaseException:
        try:
            try:
                raise error
            except BaseException as inner:
                raise RuntimeError("the workers failed") from inner
        except RuntimeError as outer:
            return outer

    assert storage_failure(chain(StorageError("full"))) == "full"
    assert storage_failure(chain(ValueError("x"))) is None
    wrapped = RuntimeError("Training failed")
    wrapped.worker_failures = {1: StorageError("away")}  # type: ignore[attr-defined]
    assert storage_failure(wrapped) == "away"
