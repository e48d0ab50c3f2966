"""Storage of results in a folder or an object store, and a cache of trained networks in it."""

from mipoison.storage.files import Storage, StorageError, storage_failure

__all__ = ["Storage", "StorageError", "storage_failure"]
