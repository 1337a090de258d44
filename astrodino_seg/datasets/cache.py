# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Files of a folder, each with its checksum beside it.
"""

import hashlib
import os
from pathlib import Path

__all__ = ['FileCache']


class FileCache:
    """
    Files that were downloaded once.

    Beside ``name.fits`` lies ``name.sha256``, which ``sha256sum --check``
    reads. A file without it, or that does not agree with it, does not count.

    Parameters
    ----------
    folder : path-like
        Where the files are; made if need be.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def find(self, name):
        """
        Find a file.

        Parameters
        ----------
        name : str
            Its name, with the ending.

        Returns
        -------
        path : `~pathlib.Path` or `None`
            The file; `None` if there is none that is whole.
        """
        path = self.folder / name
        try:
            wanted = path.with_suffix('.sha256').read_text().split()[0]
            whole = hashlib.sha256(path.read_bytes()).hexdigest() == wanted
        except (FileNotFoundError, IndexError):
            return None
        return path if whole else None

    def add(self, part, name):
        """
        Move a file into the cache, in place of one of the same name.

        Parameters
        ----------
        part : `~pathlib.Path`
            The file, on the same file system.
        name : str
            The name that it gets.

        Returns
        -------
        path : `~pathlib.Path`
            Where it is now.
        """
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        beside = part.with_suffix('.sha256')
        beside.write_text(f'{digest}  {name}\n')
        path = self.folder / name
        os.replace(part, path)
        os.replace(beside, path.with_suffix('.sha256'))
        return path
