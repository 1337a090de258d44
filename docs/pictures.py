# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Put the pictures that the scripts of the gallery write into their pages.
"""

import shutil
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

__all__ = ['scrape']


def scrape(block, block_vars, gallery_conf):
    """Take away the PNG files of a script, which is run in its own folder."""
    written = sorted(Path(block_vars['src_file']).parent.glob('*.png'))
    pictures = []
    for path, picture in zip(written, block_vars['image_path_iterator']):
        shutil.move(path, picture)
        pictures.append(picture)
    return figure_rst(pictures, gallery_conf['src_dir'])
