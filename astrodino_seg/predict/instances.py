# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From an image to objects: `input_of` makes what a model takes, with a sky that
was measured beside the objects, and `find_instances` says what is in it.

Of a `~astrodino_seg.Model`, by the seeds of all levels, which `decode` groups;
of a `~astrodino_seg.models.SemanticModel`, by the regions of its classes.
"""

from dataclasses import dataclass, replace
from functools import singledispatch

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, label
from skimage.measure import label as label_regions
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.image import Image
from astrodino_seg.inputs.background import sums_of_blocks
from astrodino_seg.inputs.channels import normalise
from astrodino_seg.inputs.rules import NoiseUnits
from astrodino_seg.models.decision import read_calibration
from astrodino_seg.models.instance import Model
from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.predict.decode import (
    MERGE,
    MIN_SEED,
    Grouping,
    decode,
    enlarge,
    weigh,
)
from astrodino_seg.predict.domain import signs_of
from astrodino_seg.predict.merge import gather
from astrodino_seg.predict.pyramid import LEAST_SIDE, look_at_all, sky_at_all
from astrodino_seg.predict.tiles import (
    CONTEXT,
    FLIPS,
    TILE_SIZE,
    blend,
    tiles,
)

#: Pixels, in x and in y, that are binned: in a quarter of the noise a galaxy
#: is seen further out, and in a sixteenth of the time.
BIN_FACTOR = 4
#: Least probability of the sky.
SKY = 0.7
#: What is no sky is grown by this share of its radius, for its outskirts.
GROW = 0.25
#: Share of the image that is left as sky in any case: the likeliest.
LEAST_SKY = 0.1
#: The first time the background is that beside the brightest only.
N_PASSES = 2


def has_pixels(labels, n, n_pixels, connectivity):
    """
    Which labels have enough connected pixels.

    ``labels`` (y, x) int -> ``found`` (n,) bool.
    """
    pieces, n_pieces = label_regions(labels, background=0, return_num=True,
                                     connectivity=connectivity // 4)
    owner = np.zeros(n_pieces + 1, int)
    owner[pieces.ravel()] = labels.ravel()
    area = np.bincount(pieces.ravel(), minlength=n_pieces + 1)
    found = np.zeros(n + 1, bool)
    found[owner[area >= n_pixels]] = True
    return found[1:]


def input_of(model, image, *, background=None, **options):
    """
    Make what a model takes from an image.

    Gives ``planes`` (C, y, x) float32.
    """
    return inputs_of(model, [image], [background], **options)[0]


def inputs_of(model, images, backgrounds, **options):
    """As `input_of`, of each of some images of one shape."""
    in_noise = isinstance(model.planes, NoiseUnits)
    objects = dict.fromkeys(range(len(images)))
    if in_noise and hasattr(model, 'decision'):
        some = [k for k, one in enumerate(backgrounds)
                if one is None or isinstance(one, str)]
        objects.update(zip(some, find_objects(
            model, [images[k] for k in some], **options)))
    return [_input(model, image, objects[k], background, in_noise)
            for k, (image, background) in enumerate(zip(images, backgrounds))]


def _input(model, image, objects, background, in_noise):
    normalised = normalise(image, model.preprocess, objects=objects,
                           background=background)
    if in_noise:
        return normalised, normalised.channels
    if background is not None:          # other rules measure their own
        image = replace(image, cube=np.where(
            image.mask, 0, image.cube - normalised.background))
    return normalised, model.planes(image)


def find_objects(model, images, **options):
    """
    Tell the sky from what stands before it, faint outskirts included.

    Of images of one shape; gives ``objects`` (y, x) bool of each, or `None`.
    """
    objects = [None] * len(images)
    if not images:
        return objects
    factor = min(BIN_FACTOR, 2**int(np.log2(max(
        min(images[0].shape) / LEAST_SIDE, 1))))
    if factor < 2:
        return objects
    binned = [_bin(image, factor) for image in images]
    spec = model.preprocess
    spec = replace(spec, box_size=max(spec.box_size // factor, 16))
    for _ in range(N_PASSES):
        channels = [normalise(image, spec, objects=one).channels
                    for image, one in zip(binned, objects)]
        objects = list(map(_in_front, *sky_at_all(
            model, channels, n_levels=2, **options)))
    return [_repeated(one, factor, image.shape)
            for one, image in zip(objects, images)]


def _in_front(sky, *coarser):
    """What is no sky at any level, (y, x) bool of the first."""
    for one in coarser:
        sky = np.minimum(sky, _repeated(one, 2, sky.shape))
    objects = _grow(sky < SKY)
    if objects.mean() > 1 - LEAST_SKY:
        objects = sky < np.quantile(sky, 1 - LEAST_SKY)
    return objects


def _bin(image, n):
    """Means of the valid pixels of blocks; those at the edge may be less."""
    edges = [(0, 0), *((0, -side % n) for side in image.shape)]

    def blocks(values):
        if any(map(sum, edges)):
            values = np.pad(values, edges)
        return np.stack([sums_of_blocks(one, n) for one in values])

    n_valid = blocks((~image.mask).view(np.uint8)).astype(np.float32)
    share = np.maximum(n_valid, 1)
    noise = image.noise
    if noise is not None:
        with np.errstate(over='ignore'):        # infinite, as good as that
            noise = np.sqrt(blocks(np.where(image.mask, 0, noise**2))) / share
        noise[n_valid == 0] = 1
    # of less than half a block the noise is another
    return Image(cube=blocks(image.cube) / share, mask=n_valid < n * n / 2,
                 noise=noise, bands=image.bands)


def _repeated(values, factor, shape):
    """Pixels repeated, cut or continued to a shape."""
    y, x = (np.minimum(np.arange(n) // factor, m - 1)
            for n, m in zip(shape, values.shape))
    return values[np.ix_(y, x)]


def _grow(objects):
    """Connected pixels and those near by, further about larger ones."""
    labels, n = label(objects, np.ones((3, 3)))
    if n == 0:
        return objects
    radius = np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    apart, nearest = distance_transform_edt(~objects, return_indices=True)
    return apart <= np.maximum(GROW * radius, 1)[labels[tuple(nearest)] - 1]


def predict_classes(model, planes, *, bin_factor=1, tile_size=TILE_SIZE,
                    symmetric=False, device='cpu', progress=False):
    """
    Class probabilities of an image of any size.

    A larger image is cut into tiles, whose probabilities are averaged where
    they overlap.

    ``planes`` (plane, y, x) float32 -> ``probabilities`` (class, y, x)
    float32.
    """
    _, ny, nx = planes.shape
    patch = model.vit.patch_size        # tiles are of whole patches
    x = torch.from_numpy(planes)[None]
    x = F.pad(x, (0, -nx % patch, 0, -ny % patch), mode='replicate')
    shape = tuple(x.shape[2:])
    cut = tiles(shape, size=tile_size // patch * patch,
                margin=CONTEXT // patch * patch, step=patch)

    flips = FLIPS if symmetric else FLIPS[:1]

    def parts():
        for tile in tqdm(cut, disable=not progress, desc='segmenting',
                         unit='tile', leave=False):
            part = x[:, :, *tile.outer].to(device)
            with torch.inference_mode():
                yield tile, sum(model.probabilities(
                    part.flip(axes), 1 / bin_factor)[0].flip(axes).cpu()
                    for axes in flips) / len(flips)

    return blend(parts(), shape, 1)[:, :ny, :nx].numpy()


def segment_classes(probabilities, *, n_pixels=5, connectivity=8, keep=None,
                    mask=None):
    """
    Label the connected regions of each class.

    ``probabilities`` (class, y, x), ``mask`` (y, x) bool -> ``classes``
    (n_objects, class - 1).
    """
    called = probabilities.argmax(axis=0)
    if mask is not None:
        called[mask] = 0
    labels, n = label_regions(called, background=0, return_num=True,
                              connectivity=2 if connectivity == 8 else 1)
    wanted = np.bincount(labels.ravel(), minlength=n + 1)[1:] >= n_pixels
    if keep is not None:
        wanted &= keep(labels, n)
    number = np.zeros(n + 1, np.int32)
    number[1:][wanted] = np.arange(1, wanted.sum() + 1)
    labels, n = number[labels], int(wanted.sum())
    classes = np.stack([np.bincount(labels.ravel(), p.ravel(), n + 1)[1:]
                        for p in probabilities[1:]], axis=-1)
    classes /= classes.sum(axis=1, keepdims=True)
    grouping = Grouping(labels, labels.copy(), {}, np.arange(n),
                        np.full(n, np.nan), np.ones(n, int))
    return grouping, classes


@dataclass(frozen=True, eq=False, kw_only=True)
class Instances:
    """Objects, and what they and the pixels are."""

    #: Labels and fragments.
    grouping: Grouping
    #: (n_objects, class - 1) probabilities of the classes but the sky.
    classes: np.ndarray
    #: (class, y, x) float32, of the sky first; or `None`.
    probabilities: np.ndarray | None
    #: As of `~astrodino_seg.predict.domain.signs_of`, of a model that knows
    #: what it copes with.
    signs: dict | None = None


def find_instances(model, planes, *, mask=None, keep=None, **options):
    """
    Find the objects of an image.

    Takes ``planes`` (plane, y, x) float32.
    """
    return next(find_all(model, [planes], [{'mask': mask, 'keep': keep}],
                         **options))


@singledispatch
def find_all(model, images, rules, *, bin_factor=1, n_pixels=5,
             connectivity=8, merge=MERGE, min_seed=MIN_SEED,
             tile_size=TILE_SIZE, symmetric=False, device='cpu',
             progress=False, only_labels=False):
    """
    Find the objects of images of one shape, which the network sees at once.

    ``images`` are planes, and ``rules`` the ``mask`` and ``keep`` of each;
    yields their `Instances`, without classes of pixels if ``only_labels``.
    """
    msg = f'model must be a model of this package, got {type(model).__name__}'
    raise TypeError(msg)


@find_all.register
def _(model: Model, images, rules, *, bin_factor=1, connectivity=8,
      tile_size=TILE_SIZE, symmetric=False, device='cpu', progress=False,
      only_labels=False, **common):
    """Seeds at all levels of a pyramid, joined to objects."""
    shape = images[0].shape[1:]
    seen = look_at_all(model, images, bin_factor=bin_factor,
                       tile_size=tile_size, symmetric=symmetric,
                       device=device, progress=progress,
                       classes=not only_labels)
    calibration = read_calibration(model.calibration)
    for levels, own in zip(seen, rules):
        weighed = weigh(levels, model.decision)
        grouping = decode(levels, model.decision, shape, weighed=weighed,
                          **own, **common)
        classes, heat = (gather(levels, key)[grouping.seed_of]
                         for key in ('classes', 'heat'))
        grouping = replace(grouping, confidence=calibration.confidences(
            grouping.confidence, heat))
        fine = None if only_labels else levels[0].probabilities
        if fine is not None and bin_factor > 1:
            fine = np.stack([enlarge(one, bin_factor)[:shape[0], :shape[1]]
                             for one in fine])
        yield Instances(grouping=grouping, probabilities=fine,
                        classes=calibration.class_probabilities(classes),
                        signs=calibration.domain and signs_of(levels, weighed))


@find_all.register
def _(model: SemanticModel, images, rules, *, bin_factor=1, merge=MERGE,
      min_seed=MIN_SEED, tile_size=TILE_SIZE, symmetric=False, device='cpu',
      progress=False, only_labels=False, **common):
    """Connected regions of one class."""
    for planes, own in zip(images, rules):
        probabilities = predict_classes(
            model, planes, bin_factor=bin_factor, tile_size=tile_size,
            symmetric=symmetric, device=device, progress=progress)
        grouping, classes = segment_classes(probabilities, **own, **common)
        yield Instances(grouping=grouping, classes=classes,
                        probabilities=probabilities)
