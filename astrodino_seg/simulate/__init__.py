# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Simulated scenes with exact truth. Needs GalSim (extra ``simulate``).
"""

from astrodino_seg.simulate.galaxies import KINDS, resolved_galaxy
from astrodino_seg.simulate.observe import ISOPHOTE, Truth, observe
from astrodino_seg.simulate.scene import BAND_SETS, Scene, make_scene
from astrodino_seg.simulate.scene_library import SPLITS, SceneLibrary

__all__ = ['BAND_SETS', 'ISOPHOTE', 'KINDS', 'SPLITS', 'Scene',
           'SceneLibrary', 'Truth', 'make_scene', 'observe',
           'resolved_galaxy']
