# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Write the tables of what is read from files, which ``files.rst`` includes.

    python docs/using/files/layouts.py
"""

import re
from pathlib import Path

from astrodino_seg.image.layouts import FILTER_KEYS, PIPELINES, ROLES

__all__ = ['tables']

MEANING = {
    'skip': 'known, and not needed', 'good': 'bad where it is 0',
    'std': '1-sigma noise', 'ivar': 'inverse variance; bad where it is 0',
    'var': 'variance', 'weight': 'bad where it is 0; its scale is unknown',
    'mask': 'bad where a bit of the pipeline is set', 'science': 'the image'}


def _bad(one):
    if one.names:
        return ', '.join(f'MP_{name}' for name in one.names)
    if one.values:
        return 'numbers ' + ', '.join(map(str, one.values))
    return 'any' if -1 in one.bits else ', '.join(map(str, one.bits))


def _table(head, rows, widths):
    lines = ['', '.. list-table::', '   :header-rows: 1',
             f'   :widths: {widths}', '']
    for row in (head, *rows):
        lines += [f'   {"*" if k == 0 else " "} - {cell}'.rstrip()
                  for k, cell in enumerate(row)]
    return lines


def tables():
    """The text of ``layouts.txt``."""
    lines = ['.. made by layouts.py of the tables in',
             '   astrodino_seg/data/layouts.toml']
    lines += _table(('plane', 'words in EXTNAME, EXTTYPE or IMAGETYP'), [
        (MEANING[role], words) for role, words in ROLES.items()], '30 70')
    lines += ['', 'The filter is the first known one of the keywords '
              + ', '.join(f'``{key}``' for key in FILTER_KEYS)
              + ', then of EXTNAME, and then of the name of the file.', '']
    lines += _table(('pipeline', 'planes', 'bad', 'documented in'), [
        (one.name, one.planes, _bad(one), re.sub(
            r'https?://(?:github.com/([^\s,;]+)|([^/]+)[^\s,;]*)',
            lambda url: f'`{url[1] or url[2]} <{url[0]}>`__', one.source))
        for one in PIPELINES],
        '18 24 29 29')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    Path(__file__).with_name('layouts.txt').write_text(tables())
