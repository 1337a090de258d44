# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files that appear whole or not at all, alone or as a set, of one run at a time;
what tells one from another; and how large what comes from outside may become.
What is not whole yet is hidden beside the place where it goes, under a name
that the next run finds and clears away.
"""

import hashlib
import os
from contextlib import contextmanager, suppress
from errno import ENOENT
from pathlib import Path
from shutil import rmtree

from filelock import FileLock, Timeout

from astrodino_seg.errors import BusyError, TooLargeError

#: Seconds to wait for another process that writes the same file.
PATIENCE = 600
#: The environment variable that sets another limit, in bytes.
VARIABLE = 'ASTRODINO_MAX_BYTES'
#: The most bytes that what is stored in fewer may become: a file that is
#: compressed, or an image in one.
MAX_BYTES = 4 * 2**30


@contextmanager
def locked(path, *, wait=0):
    """
    Nobody else who asks may write ``path`` meanwhile; who is not first has a
    `BusyError`, after ``wait`` seconds. The system frees the lock of a process
    that ends.
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


def check_new(path, *, overwrite=False):
    """Raise unless a file can be made here; gives its `~pathlib.Path`."""
    path = Path(path)
    if path.exists() and not overwrite:
        replaces = '; overwrite=True replaces it' * (overwrite is not None)
        msg = f'{str(path)!r} exists{replaces}'
        raise FileExistsError(msg)
    if not path.parent.is_dir():
        msg = f'no such directory: {str(path.parent)!r}'
        raise FileNotFoundError(msg)
    return path


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
    Paths to write to, by the keys of ``paths``, in the folder of ``prefix``,
    which must be `locked`; at the end all files are moved there, or none if
    something failed. If the process is killed while it does, `finish_set`
    moves the rest.
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


def max_bytes():
    """The limit in bytes."""
    value = os.environ.get(VARIABLE, MAX_BYTES)
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        msg = f'{VARIABLE} must be a number of bytes, got {value!r}'
        raise ValueError(msg) from None


@contextmanager
def one_error(text):
    """
    Make whatever is wrong with a file one `ValueError`, of this text and why.
    """
    try:
        yield
    except (PermissionError, FileNotFoundError, TooLargeError):
        raise
    except Exception as err:  # noqa: BLE001  anything, if it is damaged
        reason = str(err).strip().split('\n')[0] or type(err).__name__
        msg = f'{text}: {reason}'
        raise ValueError(msg) from err


def check_bytes(n_bytes, name):
    """Raise `TooLargeError` for what would take more bytes than the limit."""
    limit = max_bytes()
    if n_bytes > limit:
        msg = (f'{name} becomes {n_bytes / 2**30:.1f} GiB or more, the limit '
               f'is {limit / 2**30:.1f} GiB; set {VARIABLE} to more bytes if '
               f'that is meant')
        raise TooLargeError(msg)


def read_all(stream, name):
    """The content of a stream, in pieces, up to the limit."""
    content = bytearray()
    while piece := stream.read(2**20):
        check_bytes(len(content) + len(piece), name)
        content += piece
    return content


def fits_files(folder):
    """The FITS files of a folder, in the order of their names."""
    ends = tuple(f'.{kind}{packed}' for kind in ('fits', 'fit')
                 for packed in ('', '.fz', '.gz', '.bz2'))
    return sorted(str(path) for path in Path(folder).iterdir()
                  if path.name.endswith(ends))
