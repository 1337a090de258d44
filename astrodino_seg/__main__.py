# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``python -m astrodino_seg`` is ``astrodino``.
"""

import sys

from astrodino_seg.cli import main

if __name__ == '__main__':
    sys.exit(main())
