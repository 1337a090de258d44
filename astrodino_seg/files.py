# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files that appear whole or not at all, and what tells one from another.
"""

import hashlib
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_or_not(path):
    """A path beside ``path``, which takes its place if nothing fails."""
    path = Path(path)
    # the ending, which may tell a format, is kept
    part = path.with_name(f'.{uuid4().hex}-{path.name}')
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sha256_of(path):
    """Hexadecimal sha256 of a file."""
    with open(path, 'rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()
