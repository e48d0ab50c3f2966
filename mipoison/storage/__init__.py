"""Where results are kept: a folder or an object store, and a cache of trained parts in it."""

from mipoison.storage.files import Storage, StorageError, storage_failure

__all__ = ["Storage", "StorageError", "storage_failure"]
