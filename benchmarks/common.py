# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What several scripts use: what the network says of simulated scenes, which they
look at once and group in several ways; and the real development images.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from astrodino_seg.evaluate.benchmark import split_scene
from astrodino_seg.image import Image, as_image
from astrodino_seg.models.decision import read_calibration
from astrodino_seg.models.instance import CALLED, KEPT
from astrodino_seg.models.load import digest, load_model
from astrodino_seg.predict import merge as rules
from astrodino_seg.predict.decode import decode
from astrodino_seg.predict.instances import has_pixels, input_of
from astrodino_seg.predict.pyramid import MIN_HEAT, look
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate import SceneLibrary
from astrodino_seg.simulate.scene_library import VERSION
from astrodino_seg.truth import Truth

DEFAULTS = DinoSegmenter()
KIDS = 'kids_viking/{}.fits'
ZOOMS = {'spiral': (1050, 1362, 330, 630), 'merger': (1220, 1400, 1580, 1760),
         'tail': (790, 1030, 1760, 2000), 'edge_on': (1180, 1390, 930, 1130),
         'saturated': (520, 820, 610, 910), 'gaps': (0, 400, 0, 400)}


class SceneLooks(NamedTuple):
    """
    One scene: image and truth, the pixels without any valid band, and what
    the network says of it at all levels.
    """

    image: Image
    truth: Truth
    dead: np.ndarray
    levels: list


class Network:
    """
    A model that looks at scenes.

    Parameters
    ----------
    path : path-like or None
        As of `~astrodino_seg.load_model`.
    folder : path-like or None
        Where the rendered scenes are kept, if anywhere.
    """

    def __init__(self, path, folder=None):
        model = load_model(path)
        self.calibration = read_calibration(model.calibration)
        self.path = None if folder is None else Path(folder) / 'scenes'
        # in the numbers that the segmenter would choose
        self.model = DinoSegmenter(model=model)._fetch_model()
        model.calibration = None        # which has no part in the labels
        limits = (MIN_HEAT, CALLED, KEPT, rules.REACH, rules.NEAR,
                  rules.CROWDED, rules.CLAIM, rules.UNLIKE)
        made_of = (f'{json.dumps(model.spec)}, {digest(model)}, scenes '
                   f'{VERSION}, {self.model.in_bfloat16}, {limits}')
        self.digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]

    def scenes(self, split, n_scenes):
        """Yield the `SceneLooks` of the first scenes of a split."""
        library = SceneLibrary(split, n_scenes, path=self.path)
        for k in range(n_scenes):
            yield self.look(*split_scene(library, k))

    def look(self, image, truth):
        """The `SceneLooks` of an image."""
        normalised, planes = input_of(self.model, image)
        dead = ~np.isfinite(normalised.noise).any(axis=0)
        return SceneLooks(image, truth, dead,
                          look(self.model, planes))

    def group(self, looks, *, merge=DEFAULTS.merge,
              min_seed=DEFAULTS.min_seed):
        """
        Labels as `~astrodino_seg.DinoSegmenter` makes them of an image.

        Parameters
        ----------
        looks : `SceneLooks`
            The scene.
        merge, min_seed : float, optional
            Those of the segmenter.

        Returns
        -------
        grouping : `~astrodino_seg.predict.decode.Grouping`
            The labels. Their confidence is not calibrated.
        """
        return decode(looks.levels, self.model.decision, looks.dead.shape,
                      merge=merge, min_seed=min_seed, mask=looks.dead,
                      n_pixels=DEFAULTS.n_pixels, keep=keep)


def keep(labels, n):
    """Which labels the segmenter keeps if it has no threshold."""
    return has_pixels(labels, n, DEFAULTS.n_pixels, DEFAULTS.connectivity)


def add_data(parser):
    """Add the option of the folder of the real development images."""
    parser.add_argument('--data', type=Path,
                        default=os.environ.get('ASTRODINO_DATA'))


def parse_with_data(parser):
    """The arguments of a command that cannot do without that folder."""
    add_data(parser)
    args = parser.parse_args()
    if args.data is None or not args.data.is_dir():
        parser.error('no folder of images: give --data')
    return args


def is_half(model):
    """Whether the weights are float16 numbers, as of bundled models."""
    return all((value.half().float() == value).all()
               for value in model.state_dict().values()
               if value.is_floating_point())


def _npz(path):
    with np.load(path) as z:
        error = np.sqrt(z['variance']) if 'variance' in z else None
        return as_image(z['images'], error=error,
                        bands=[str(f) for f in z['filters']])


def _paths(folder, pattern, bands):
    return {band: folder / pattern.format(band) for band in bands}


def fields(folder):
    """Name to (input of `as_image`, zooms)."""
    sdss = folder / 'spiral_with_star/SDSS_{}.fits'
    kids = folder / KIDS
    jwst = folder / 'jwst_uds'
    out = {
        'kids_griZ': (_paths(folder, KIDS, 'griZ'), ZOOMS),
        'kids_nine': ({b: folder / KIDS.format(b) for b in (
            'u', 'g', 'r', 'i', 'Z', 'Y', 'J', 'H', 'Ks')},
            {'spiral': ZOOMS['spiral']}),
        'kids_r': (Path(str(kids).format('r')),
                   {'spiral': ZOOMS['spiral']}),
        'jwst_three': ({b: jwst / f'{b.lower()}_sci.fits' for b in (
            'F115W', 'F444W', 'F770W')}, {'spiral': (300, 500, 210, 410)}),
        'jwst_f770w_80mas': (jwst / 'f770w_80mas_sci.fits', {}),
        'hsc_35': (folder / 'hsc/hsc_cosmos_35.npz', {}),
        'hsc': (folder / 'hsc/hsc_cosmos.npz', {}),
        'hsc_spiral': (folder / 'hsc/hsc_ra=150.24071_dec=2.06514.fits', {}),
        'sdss_ngc6976': ({b: folder / 'sdss_ngc6976'
                          / f'reprojected_sdss_{b}.fits.bz2'
                          for b in 'gri'}, {})}
    for survey in ('DES', 'PS1'):
        out[f'spiral_{survey}'] = (
            _paths(folder, f'spiral_with_star/{survey}_{{}}.fits', 'griz'),
            {})
    # the cutouts' headers still have the WCS of the uncut frames, so that
    # bands on one pixel grid seem to be on four
    out['spiral_SDSS'] = ({b: as_image(str(sdss).format(b)).cube[0]
                           for b in 'griz'}, {})
    for name in ('cluster_ring_grz', 'cutout_59.1067_-30.4848_grz_invvar_psf',
                 'dr10_griz_192.6009_-28.2675', 'decals_dr5_example_a',
                 'decals_dr5_example_b'):
        out[f'legacy_{name}'] = (folder / f'legacy/{name}.fits', {})
    for name in ('M51', 'HST-HDFS', 'image'):
        out[f'single_{name}'] = (folder / f'single_band/{name}.fits', {})
    for path in sorted((folder / 'edge_cases').glob('*.fits*')):
        out[f'edge_{path.name.split(".")[0]}'] = (path, {})
    return out


def read_field(source):
    """The `~astrodino_seg.Image` of a source of `fields`."""
    return _npz(source) if str(source).endswith('.npz') else as_image(source)
