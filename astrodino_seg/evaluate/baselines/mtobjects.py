# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
MTObjects, from a checkout of it.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from astrodino_seg.errors import MissingToolError
from astrodino_seg.evaluate.baselines.base import Baseline, segmentation_image
from astrodino_seg.evaluate.baselines.program import run_program
from astrodino_seg.image import write_plane

__all__ = ['MTObjectsFinder']

#: The environment variable that names the checkout.
VARIABLE = 'ASTRODINO_MTOBJECTS'

# Run in the checkout, with MTObjects' own command line. Its label maps as
# FITS need an Astropy before 5.1, so they are saved as arrays.
_RUN = """
import numpy as np
np.float = float  # gone since NumPy 1.24
import mtolib.main as mto
data, settings = mto.setup()
smoothed = mto.preprocess_image(data, settings)
tree = mto.build_max_tree(smoothed, settings)
np.save(settings.out, mto.filter_tree(tree, smoothed, settings)[0])
"""


@dataclass(kw_only=True)
class MTObjectsFinder(Baseline):
    """
    MTObjects [1]_ on the bands' S/N: significant nodes of a max-tree.

    There is no threshold: a node of the tree is an object if its light is
    significant for its area. The environment variable
    ``ASTRODINO_MTOBJECTS`` names a checkout of
    https://github.com/CarolineHaigh/mtobjects in which its C library was
    compiled, as its README says. It is run with the present Python.

    Parameters
    ----------
    move_factor : float, optional
        By how many sigma the lower end of an object is moved up; less keeps
        more of the faint outskirts.
    min_distance : float, optional
        Difference in brightness between objects, in sigma.
    gain : float, optional
        Electrons per unit of S/N; `None` for MTObjects' estimate, from the
        lowest pixel.
    n_pixels : int, optional
        Objects of fewer pixels are dropped.
    box_size : int, optional
        Side of the background boxes in pixels.
    timeout : float, optional
        Seconds after which it is given up.

    References
    ----------
    .. [1] Teeninga et al. 2016, Mathematical Morphology - Theory and
       Applications, 1; Haigh et al. 2021, A&A, 645, A107.
    """

    move_factor: float = 0.5
    min_distance: float = 0.0
    gain: float | None = None
    n_pixels: int = 1
    box_size: int = 64
    timeout: float = 600.0

    def require(self):
        """Raise a `MissingToolError` if there is no checkout, compiled."""
        self._checkout()

    def _checkout(self):
        name = os.environ.get(VARIABLE)
        if not name:
            msg = f'{VARIABLE} does not name a checkout of MTObjects'
            raise MissingToolError(msg)
        folder = Path(name)
        if not (folder / 'mtolib' / 'main.py').is_file():
            msg = f'{VARIABLE}={name!r} is not a checkout of MTObjects'
            raise MissingToolError(msg)
        if not (folder / 'mtolib' / 'lib' / 'mt_objects.so').is_file():
            msg = (f'the C library of the MTObjects in {name!r} is not '
                   'compiled; its README says how')
            raise MissingToolError(msg)
        return folder

    def _find(self, sn, mask):
        checkout = self._checkout()
        with tempfile.TemporaryDirectory() as folder:
            data, out = Path(folder, 'sn.fits'), Path(folder, 'labels.npy')
            write_plane(data, sn.astype(np.float32))
            command = [sys.executable, '-c', _RUN, str(data), '-out',
                       str(out), '-bg_mean', '0', '-bg_variance', '1',
                       '-move_factor', str(self.move_factor),
                       '-min_distance', str(self.min_distance)]
            if self.gain is not None:
                command += ['-gain', str(self.gain)]
            run_program(command, checkout, self.timeout)
            labels = np.load(out)
        return segmentation_image(labels + 1, mask, self.n_pixels)
