"""Finds the image files of each class below a folder, and names what is not read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from mipoison.data.images import IMAGE_SUFFIXES, DataError, printable, shown, some

_IMAGE_LIKE = (".heic", ".heif", ".avif", ".jxl", ".raw", ".dng", ".nef", ".cr2", ".arw", ".svg", ".npy")
"""Suffixes of image formats that Pillow cannot read; a list of unread files names such files first."""
_LITTER = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "__pycache__")
"""Folders that operating systems and archives create; they are not taken for classes."""


def class_files(
    name: str, root: Path, *, nested: bool = True, links: Links | None = None
) -> tuple[dict[str, list[Path]], list[Path]]:
    """The image files of each class, and all other files below the root.

    Hidden files and folders, and those that operating systems create, never count as images. Links are
    followed.

    Args:
        name: name of the data set, for messages. root: the folder with one folder a class.
        nested: whether images in subfolders of a class belong to the class.
        links: the checker of links shared by all folders of a split; None if the root is the whole data set.

    Returns:
        Class name -> its image files, both sorted; and the files that are none of these.

    Raises:
        DataError: a folder cannot be listed; a link is broken, leads in a circle, or leads from a class to
            another folder of the data set.
    """
    links = links or Links(name, [root, *folders_in(root)])
    files: dict[str, list[Path]] = {}
    unread: list[Path] = []
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            found = walk(name, root, entry, links)
            if hidden(entry):
                unread += found
                continue
            images = [path for path in found if is_image(path, entry) and (nested or path.parent == entry)]
            files[entry.name] = sorted(images)
            unread += sorted(set(found) - set(images))
        elif entry.is_symlink() and not entry.exists() and not hidden(entry):
            raise DataError(f"{name}: {shown(entry, root)} in {root} is a broken link; repair or remove it")
        else:
            unread.append(entry)
    return files, unread


def describe_unread(unread: Iterable[Path], root: Path) -> str:
    """Count and name the files that were not read, in one line; those that may be images come first."""
    known = {*Image.registered_extensions(), *_IMAGE_LIKE}

    def order(path: Path) -> tuple[bool, bool, Path]:
        unseen = any(hidden(Path(part)) for part in path.relative_to(root).parts)
        return unseen, path.suffix.lower() not in known, path

    names = [shown(path, root) for path in sorted(unread, key=order)]
    return f"{len(names)} file{'s' * (len(names) != 1)} not read: {some(names)}" if names else ""


def hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _LITTER


def is_image(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder).parts
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(hidden(Path(part)) for part in inside)


class Links:
    """Checks the links inside classes, so that no image is read twice or counted to the wrong class.

    A link may lead to a folder outside the data set, unless another link leads there too.

    Args:
        name: name of the data set, for messages. own: the data set's own folders, which are the root and the
            classes; each may itself be a link.
    """

    def __init__(self, name: str, own: Iterable[Path]) -> None:
        self._name, self._own = name, [path.resolve() for path in own]
        self._reached: dict[tuple[int, int], Path] = {}

    def check(self, root: Path, folder: Path) -> bool:
        """Whether a folder below a class is a link, or is reached through one.

        Raises:
            DataError: the link leads in a circle, into the data set, or where another link leads.
        """
        real, above = folder.resolve(), folder.parent.resolve()
        subject = f"{self._name}: {shown(folder, root)} in {root}"
        if folder.is_symlink():
            if above.is_relative_to(real):
                raise DataError(f"{subject} is a link in a circle; remove it")
            if any(real.is_relative_to(own) or own.is_relative_to(real) for own in self._own):
                raise DataError(
                    f"{subject} is a link to {printable(real)}, another folder of the same data set: its "
                    "images would be read twice; remove it"
                )
        elif (status := above.stat()) and (status.st_dev, status.st_ino) not in self._reached:
            return False
        status = real.stat()
        first = self._reached.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            raise DataError(
                f"{subject} leads to {printable(real)}, as {printable(first)} does: its images would be "
                "read twice; remove one of the links"
            )
        return True


def folders_in(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not hidden(path)]


def walk(name: str, root: Path, folder: Path, links: Links | None = None) -> list[Path]:
    """Every file below a folder, and every folder that has an image's suffix, sorted.

    Raises:
        DataError: a folder cannot be listed, or a link leads where it must not (see :class:`Links`).
    """
    links = links or Links(name, [folder])

    def fail(error: OSError) -> None:
        where = shown(Path(os.fsdecode(error.filename)), root)
        raise DataError(f"{name}: {where} in {root} cannot be listed ({error.strerror})") from error

    found = []
    for at, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        here = Path(at)
        for inner in list(folders):
            if any(hidden(Path(part)) for part in (here / inner).relative_to(folder.parent).parts):
                if (here / inner).is_symlink():  # e.g. of a repository or an environment: not searched
                    folders.remove(inner)
            else:
                links.check(root, here / inner)
        found += [here / file for file in files]
        found += [here / inner for inner in folders if Path(inner).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)
