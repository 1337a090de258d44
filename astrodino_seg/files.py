# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files that appear whole or not at all, alone or as a set, of one run at a time;
and what tells one from another.

What is not whole yet is hidden beside the place where it goes, under a name
that the next run finds: it clears away what a killed one left.
"""

import hashlib
from contextlib import contextmanager, suppress
from errno import ENOENT
from pathlib import Path
from shutil import rmtree

from filelock import FileLock, Timeout

from astrodino_seg.errors import BusyError

#: Seconds to wait for another process that writes the same file.
PATIENCE = 600


@contextmanager
def locked(path, *, wait=0):
    """
    Nobody else who asks may write ``path`` meanwhile; who is not first has a
    `BusyError`, after ``wait`` seconds.

    The system frees the lock of a process that ends, however it ends.
    """
    file = _hidden(path, 'lock')
    if not file.parent.is_dir():        # filelock would make it
        raise FileNotFoundError(ENOENT, 'no such folder', str(file.parent))
    # the file is taken away while the lock is held; filelock looks whether
    # what it has locked is still there
    lock = FileLock(file, timeout=wait)
    try:
        lock.acquire()
    except Timeout as err:
        msg = (f'{str(path)!r} is being written by another process; wait for '
               f'its end, or give another path')
        raise BusyError(msg) from err
    try:
        yield
    finally:
        with suppress(OSError):     # Windows removes no file that is open
            file.unlink()
        lock.release()


@contextmanager
def whole_or_not(path):
    """A path beside ``path``, which takes its place if nothing fails."""
    path = Path(path)
    # the ending, which may tell a format, is kept
    part = path.with_name(f'.part-{path.name}')
    with locked(path, wait=PATIENCE):
        part.unlink(missing_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def all_or_none(prefix, paths):
    """
    Paths to write to, by the keys of ``paths``; at the end all files are moved
    there, or none if something failed.

    No file system moves several files at once: if the process is killed while
    it does, `finish_set` moves the rest. All are in the folder of ``prefix``,
    of which only one run at a time may make a set (see `locked`).
    """
    finish_set(prefix)
    part = _hidden(prefix, 'part')
    part.mkdir()
    try:
        yield {kind: part / path.name for kind, path in paths.items()}
        names = [path.name for path in paths.values()]
        (part / '.names').write_text('\n'.join(names))
        part.rename(_hidden(prefix, 'set'))     # from here on it is all
        finish_set(prefix)
    finally:
        rmtree(part, ignore_errors=True)


def finish_set(prefix):
    """
    Move what a killed run had not moved yet, and clear away what it had not
    finished; gives the paths of a set that is complete only now.
    """
    rmtree(_hidden(prefix, 'part'), ignore_errors=True)
    folder = _hidden(prefix, 'set')
    if not folder.is_dir():
        return []
    names = folder / '.names'
    paths = [folder.with_name(name) for name in (
        names.read_text().splitlines() if names.exists() else [])]
    for path in paths:
        with suppress(FileNotFoundError):       # it was moved before
            (folder / path.name).replace(path)
    rmtree(folder)
    return paths


def _hidden(path, what):
    """A hidden path beside another."""
    path = Path(path)
    return path.with_name(f'.{path.name}.{what}')


def sha256_of(path):
    """Hexadecimal sha256 of a file."""
    with open(path, 'rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
