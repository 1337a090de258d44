# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the network says of simulated scenes, and labels of it.

Other scripts here look at a scene once, and then group what the network says
in several ways.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from astrodino_seg.evaluate.benchmark import split_scene
from astrodino_seg.image import Image
from astrodino_seg.inputs.channels import normalise
from astrodino_seg.models.calibration import read_calibration
from astrodino_seg.models.files import digest
from astrodino_seg.models.instance import CALLED, KEPT
from astrodino_seg.models.load import load_model
from astrodino_seg.predict import merge as rules
from astrodino_seg.predict.decode import decode
from astrodino_seg.predict.pyramid import MIN_HEAT, look
from astrodino_seg.predict.threshold import has_pixels
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate import SceneLibrary, Truth
from astrodino_seg.simulate.scene_library import VERSION

DEFAULTS = DinoSegmenter()


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
        normalised = normalise(image, self.model.preprocess)
        dead = ~np.isfinite(normalised.noise).any(axis=0)
        return SceneLooks(image, truth, dead,
                          look(self.model, self.model.planes(image)))

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
