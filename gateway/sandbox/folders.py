"""A folder for as long as a process runs. What one that was killed left behind, the next one removes.

Knows: by what such a folder is known for certain: its name, its user, and a file in it that nobody holds locked any more.
Must not know: what is kept in it, beyond the file in which a mongod writes down that it runs.

A lock ends with the process that holds it, however that ended; a number of a process is soon that of another one, and in
another container it is nobody's.
"""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":  # where nothing is known for certain, nothing is removed
    from fcntl import LOCK_EX, LOCK_NB, flock

_PREFIX = "gateway-demo-"
_MARK = "in-use-by"
_RUNNING = "mongod.lock"  # empty, or with the number of the process


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A new folder, removed at the end; before, those that were left."""
    remove_left_folders()
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name, _marked(Path(name)):
        yield Path(name)


def remove_left_folders() -> None:
    """Remove the folders of this user whose process is gone. What is not known for certain stays."""
    if sys.platform == "win32":
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if _is_ours(folder.lstat(), stat.S_ISDIR) and _is_ours((folder / _MARK).lstat(), stat.S_ISREG):
                _remove_if_left(folder)
        except OSError:  # gone meanwhile, without a mark, locked by its process: no matter of ours
            continue


def _remove_if_left(folder: Path) -> None:
    """Remove it with the lock in hand, which two do not get."""
    with (folder / _MARK).open("rb") as mark:
        flock(mark, LOCK_EX | LOCK_NB)
        if not _has_mongod(folder):  # it is told to end when its demo is gone, which takes a moment, and not everywhere
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _marked(folder: Path) -> Iterator[None]:
    """With a mark in it that is locked before it has its name: nobody finds it without its lock."""
    if sys.platform == "win32":
        yield
        return
    unnamed = folder / f"{_MARK}.new"
    with unnamed.open("w", encoding="utf-8") as mark:
        with suppress(OSError):  # where files have no locks, there is no mark either
            flock(mark, LOCK_EX)
            mark.write(f"{os.getpid()}\n")  # for people
            mark.flush()
            unnamed.rename(folder / _MARK)
        yield


def _is_ours(found: os.stat_result, is_of_kind: Callable[[int], bool]) -> bool:
    return is_of_kind(found.st_mode) and found.st_uid == os.getuid()


def _has_mongod(folder: Path) -> bool:
    try:
        os.kill(int((folder / _RUNNING).read_text("ascii")), 0)
    except (OSError, ValueError):  # there is none, or none of this user
        return False
    return True
