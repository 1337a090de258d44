# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What the network says of simulated scenes, kept on disk.

Other scripts here repeat the grouping with it, which takes a small part of
the time. A scene takes 21 MB, and 7 MB as it was rendered.
"""

import hashlib
import json
import os
from typing import NamedTuple

import numpy as np
from scipy.special import expit, softmax

from astrodino_seg.benchmark import split_scene
from astrodino_seg.calibration import Calibration, log_odds, read_calibration
from astrodino_seg.coarse import FACTORS, giants_of, look_at_binned
from astrodino_seg.grouping import segment_maps
from astrodino_seg.image import Image
from astrodino_seg.inference import predict
from astrodino_seg.model import load_model
from astrodino_seg.prediction import CROWDED, NEAR, PAIR_REACH, Prediction
from astrodino_seg.preprocess import normalise
from astrodino_seg.segmenter import DinoSegmenter
from astrodino_seg.simulate import SceneLibrary, Truth
from astrodino_seg.simulate.scene_library import VERSION
from astrodino_seg.threshold import has_pixels
from astrodino_seg.weights import digest

DEFAULTS = DinoSegmenter()


class SceneMaps(NamedTuple):
    """
    One scene: image and truth, the pixels without any valid band, and what
    the network says of it at full resolution and binned by each of `FACTORS`,
    not calibrated.
    """

    image: Image
    truth: Truth
    dead: np.ndarray
    prediction: Prediction
    coarse: tuple


class Network:
    """
    A model whose output is kept.

    Parameters
    ----------
    path : path-like or None
        As of `~astrodino_seg.load_model`.
    folder : `~pathlib.Path`
        Where the output and the rendered scenes are kept. Output of other
        weights, or in other numbers, has other names; the provenance has no
        part in that.
    """

    def __init__(self, path, folder):
        model = load_model(path)
        self.calibration = read_calibration(model.provenance)
        model.provenance.pop('calibration', None)
        self.folder = folder
        # in the numbers that the segmenter would choose
        self.model = DinoSegmenter(model=model)._fetch_model()
        made_of = (f'{json.dumps(model.spec)}, {digest(model)}, scenes '
                   f'{VERSION}, {self.model.in_bfloat16}, {FACTORS}, '
                   f'{PAIR_REACH}, {NEAR}, {CROWDED}')
        self.digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]

    def scenes(self, split, n_scenes):
        """Yield the `SceneMaps` of the first scenes of a split."""
        library = SceneLibrary(split, n_scenes, path=self.folder / 'scenes')
        for k in range(n_scenes):
            yield self.look(*split_scene(library, k), f'{split}-{k:06d}')

    def look(self, image, truth, name):
        """The `SceneMaps` of an image; the network runs the first time."""
        normalised = normalise(image, self.model.preprocess)
        path = self.folder / 'maps' / f'{self.digest}-{name}.npz'
        if not path.exists():
            planes = self.model.planes(image)
            _save(path, {
                'full': predict(self.model, planes, bin_factor=1),
                **{f'binned{factor}': prediction for factor, prediction
                   in look_at_binned(self.model, planes).items()}})
        with np.load(path) as arrays:
            full, *binned = (_part(arrays, key) for key in (
                'full', *(f'binned{factor}' for factor in FACTORS)))
        dead = ~np.isfinite(normalised.noise).any(axis=0)
        return SceneMaps(image, truth, dead, full, tuple(binned))


def _save(path, predictions):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{os.getpid()}.{path.name}')
    with open(temporary, 'wb') as stream:
        np.savez(stream, **{
            f'{key}_{name}': value for key, one in predictions.items()
            for name, value in one._asdict().items()})
    temporary.replace(path)


def _part(arrays, key):
    values = [arrays.get(f'{key}_{name}') for name in Prediction._fields]
    return None if values[0] is None else Prediction(*values)


def calibrate(prediction, calibration):
    """A prediction with the probabilities of a calibrated model."""
    # softmax does not see what all logits have in common
    logits = np.log(np.clip(prediction.classes.astype(float), 1e-30, 1))
    same = calibration.pair_logits(log_odds(prediction.same))
    return prediction._replace(
        classes=softmax(calibration.class_logits(logits), axis=1),
        same=expit(same))


def group(maps, *, merge, min_seed=DEFAULTS.min_seed, calibration=None):
    """
    Labels as `~astrodino_seg.DinoSegmenter` makes them of an image.

    Parameters
    ----------
    maps : `SceneMaps`
        The scene.
    merge, min_seed : float
        Those of the segmenter.
    calibration : `~astrodino_seg.calibration.Calibration`, optional
        That of the model.

    Returns
    -------
    grouping : `~astrodino_seg.grouping.Grouping`
        The labels.
    prediction : `~astrodino_seg.prediction.Prediction`
        What they were made of.
    """
    calibration = calibration or Calibration()
    prediction = calibrate(maps.prediction, calibration)
    giants = [giants_of(calibrate(one, calibration), maps.dead.shape, factor,
                        merge=merge, min_seed=min_seed)
              for one, factor in zip(maps.coarse, FACTORS)
              if one is not None]
    giants = [one for one in giants if one is not None]
    n_pixels = DEFAULTS.n_pixels

    def keep(labels, n):
        return has_pixels(labels, n, n_pixels, DEFAULTS.connectivity)

    grouping = segment_maps(prediction, merge=merge, min_seed=min_seed,
                            giants=giants, n_pixels=n_pixels, keep=keep,
                            mask=maps.dead)
    return calibration.rate(grouping, prediction), prediction
