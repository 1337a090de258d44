# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
How large what comes from outside may become, checked before memory is taken.
"""

import os

from astrodino_seg.errors import TooLargeError

#: The environment variable that sets another limit, in bytes.
VARIABLE = 'ASTRODINO_MAX_BYTES'
#: The most bytes that what is stored in fewer may become: a file that is
#: compressed, or an image in one.
MAX_BYTES = 4 * 2**30


def max_bytes():
    """The limit in bytes."""
    value = os.environ.get(VARIABLE, MAX_BYTES)
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        msg = f'{VARIABLE} must be a number of bytes, got {value!r}'
        raise ValueError(msg) from None


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
