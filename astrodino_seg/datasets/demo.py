# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The bundled sample.
"""

from pathlib import Path

from astrodino_seg.image import as_image

__all__ = ['demo_image']


def demo_image():
    """
    The bundled sample: a simulated scene in g, r, i, z, with a WCS.

    Returns
    -------
    image : `~astrodino_seg.Image`
        448 x 448 pixels: a spiral, an irregular and an edge-on galaxy that
        overlap, stars, and faint galaxies. ``benchmarks/model/make_demo.py`` made
        it.
    """
    return as_image(Path(__file__).parents[1] / 'data' / 'demo_griz.fits.fz')
