# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From images, and pictures that are none, to the input of a network; and what
its patch tokens know: a linear segmentation, and their principal components as
colours.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from astrodino_seg.datasets.folder import picture_image
from astrodino_seg.embed.classifiers import confusion_matrix, fit
from astrodino_seg.errors import EmptyImageError, require
from astrodino_seg.image import as_image, in_icrs
from astrodino_seg.models.backbone import check_size, to_patches
from astrodino_seg.models.load import load_backbone
from astrodino_seg.models.semantic import PixelHead, at_pixels
from astrodino_seg.truth import CLASSES, VOID


class NetworkInput(NamedTuple):
    """
    The input of a network, (plane, y, x) float32, or `None` of nothing; its
    centre in degrees (ICRS), its name, and whether there is no image at all.
    """

    x: torch.Tensor | None
    ra: float = np.nan
    dec: float = np.nan
    name: str = ''
    missing: bool = False
    error: Exception | None = None


def prepare(item, planes, *, size=None, patch_size=1):
    """
    One item of `embed` as `NetworkInput`, by the rule for the planes,
    resampled to ``size`` in whole patches.
    """
    known = {}
    if (isinstance(item, tuple) and len(item) == 2
            and isinstance(item[1], Mapping)):
        item, known = item
    if item is None:
        return NetworkInput(None, missing=True)
    x, ra, dec = None, np.nan, np.nan
    if is_picture(item) and hasattr(planes, 'standardise'):
        x = planes.standardise(item)
    else:
        try:
            image = (picture_image(item) if is_picture(item)
                     else as_image(item))
        except EmptyImageError:
            pass
        else:
            x, (ra, dec) = planes(image), _centre(image)
    ra, dec = (float(known.get(name, value)) for name, value in
               (('ra', ra), ('dec', dec)))
    return NetworkInput(_resampled(x, size, patch_size), ra, dec,
                        str(known.get('object_id', '')))


def is_picture(item):
    """Whether this is a picture: uint8 of shape (y, x, 3)."""
    return (isinstance(item, np.ndarray) and item.dtype == np.uint8
            and item.ndim == 3 and item.shape[2] == 3)


class Inputs(Dataset):
    """
    The items of a sequence, as `prepare` makes them when they are asked for;
    of ``rgb`` where weights were trained on photographs. Of `Cutouts` the
    planes are made once, of the whole image, if the rule says what is
    ``blank``.
    """

    def __init__(self, images, planes, *, size=None, patch_size=1):
        self.images, self.planes = images, planes
        self.size, self.patch_size = check_size(size), patch_size
        self.whole = None
        if hasattr(images, 'cut') and hasattr(planes, 'blank'):
            self.whole = planes(images.image)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        """One `NetworkInput`; its error says which item it is of."""
        if self.whole is not None:
            x = self.images.cut(i, self.whole, self.planes.blank)
            if x is None:
                return NetworkInput(None, missing=True)
            return NetworkInput(_resampled(x, self.size, self.patch_size))
        pictures = hasattr(self.images, 'rgb') and hasattr(self.planes,
                                                           'standardise')
        try:
            item = self.images.rgb(i) if pictures else self.images[i]
        except (TypeError, ValueError, OSError) as err:
            return NetworkInput(None, error=err)
        return self.prepare(i, item)

    def prepare(self, i, item):
        """Prepare an item, or say of which it is that it cannot be."""
        try:
            return prepare(item, self.planes, size=self.size,
                           patch_size=self.patch_size)
        except OSError as err:
            return NetworkInput(None, error=err)
        except (TypeError, ValueError) as err:
            return NetworkInput(None, error=ValueError(f'images[{i}]: {err}'))


def _centre(image):
    """Right ascension and declination in degrees, NaN if not known."""
    ny, nx = image.shape
    centre = in_icrs(image.sky((nx - 1) / 2, (ny - 1) / 2))
    if centre is None:
        return np.nan, np.nan
    return centre.ra.deg, centre.dec.deg


def _resampled(x, size, patch_size):
    """Resampled (plane, y, x) of whole patches; `None` of nothing."""
    if x is None or (x == x[:, :1, :1]).all():
        return None
    return to_patches(torch.from_numpy(x)[None], size, patch_size)[0]


@dataclass(frozen=True, eq=False, repr=False)
class SegmentationScore:
    """How well pixels are told."""

    #: The names of the classes.
    classes: tuple
    #: (class, class) int64 pixels of the test images; rows are true.
    confusion: np.ndarray

    def __repr__(self):
        each = ', '.join(f'{name} {value:.3f}' for name, value in
                         zip(self.classes, self.iou))
        return f'<SegmentationScore: mIoU {self.miou:.3f}; {each}>'

    @property
    def iou(self):
        """Intersection over union of each class; NaN of none."""
        confusion = np.asarray(self.confusion, float)
        right = np.diag(confusion)
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
        return np.divide(right, union, out=np.full(len(right), np.nan),
                         where=union > 0)

    @property
    def miou(self):
        """The mean over the classes that there are."""
        return np.nanmean(self.iou)


def linear_segmentation(train, test, backbone=None, *, classes=CLASSES,
                        size=None, n_epochs=40, batch_size=8, rate=1e-2,
                        frozen=True, seed=0):
    """
    Segment by batch norm and one linear layer on patch tokens.

    The scores of the patches are interpolated to the pixels of the image, as
    in the linear evaluation of DINOv2 (Oquab et al. 2023, arXiv:2304.07193,
    section 7.4).

    Parameters
    ----------
    train, test : iterable of tuple
        Images and class maps, (y, x) int with -1 for pixels that do not
        count; of one shape.
    backbone : `~astrodino_seg.models.Backbone`, str or path, optional
        As of `~astrodino_seg.embed.embed`.
    classes : sequence of str, optional
        The names of the classes.
    size : int or tuple of int, optional
        Rows and columns that images are resampled to for the network.
    n_epochs, batch_size : int, optional
        Passes through the images, and images a step.
    rate : float, optional
        Of Adam, down to 0 along a cosine.
    frozen : bool, optional
        Whether the backbone stays as it is; if not, a copy is trained too,
        at the same rate, which should be about 1e-3 then.
    seed : int, optional
        Seed of weights and order.

    Returns
    -------
    score : `SegmentationScore`
        Of the pixels of the test images, at the resolution of the image.

    Raises
    ------
    ValueError
        If there are no images, shapes differ, or a class is out of range.
    """
    backbone = load_backbone(backbone)
    read = _tokens if frozen else _inputs
    parts = [] if frozen else [PatchTokens(backbone.vit)]
    x, y = _stack(train, read, backbone, size, len(classes), 'train')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Sequential(*parts,
                              PixelHead(backbone.vit.dim, len(classes)))
        _fit(layer, x, y, n_epochs, batch_size, rate)
    x, y = _stack(test, read, backbone, size, len(classes), 'test')
    with torch.inference_mode():
        called = torch.cat([at_pixels(layer(part), y.shape[1:]).argmax(dim=1)
                            for part in x.split(batch_size)])
    counts = y != VOID
    return SegmentationScore(tuple(classes), confusion_matrix(
        y[counts].numpy(), called[counts].numpy(), len(classes)))


def _fit(layer, x, y, n_epochs, batch_size, rate):
    def loss(scores, classes):
        return F.cross_entropy(at_pixels(scores, y.shape[1:]), classes,
                               ignore_index=VOID)

    epochs = (((x[rows], y[rows]) for rows in
               torch.randperm(len(x)).split(batch_size))
              for _ in range(n_epochs))
    fit(layer, epochs, rate=rate, loss=loss, n_cosine=n_epochs)


class PatchTokens(nn.Module):
    """A copy of a Vision Transformer that returns its patch tokens."""

    def __init__(self, vit):
        super().__init__()
        self.vit = copy.deepcopy(vit).requires_grad_(True)

    def forward(self, x):
        """(B, dim, gy, gx) of (B, plane, y, x)."""
        return self.vit.forward_features(x).patches[-1]


def _stack(pairs, read, backbone, size, n_classes, name):
    """What is read of each image, (n, ...), and class maps (n, y, x)."""
    images, maps = [], []
    for k, (image, classes) in enumerate(pairs):
        shape = (image.shape[:2] if is_picture(image)
                 else np.shape(getattr(image, 'cube', image))[-2:])
        classes = np.asarray(classes)
        if shape and classes.shape != shape:        # no shape: a path
            msg = (f'{name}[{k}]: classes have the shape {classes.shape}, '
                   f'the image has {shape}')
            raise ValueError(msg)
        if not np.isin(classes, np.arange(VOID, n_classes)).all():
            msg = (f'{name}[{k}]: classes must be from -1 to '
                   f'{n_classes - 1}, got {classes.min()} to {classes.max()}')
            raise ValueError(msg)
        images.append(image)
        maps.append(torch.from_numpy(classes.astype(np.int64)))
    x = list(read(images, backbone, check_size(size)))
    shapes = {(*one.shape, *classes.shape) for one, classes in zip(x, maps)}
    if len(shapes) != 1:
        msg = f'{name} must be images of one shape, got {len(shapes)} shapes'
        raise ValueError(msg)
    return torch.stack(x), torch.stack(maps)


def _inputs(images, backbone, size):
    """Yield the input of each image, (plane, y, x)."""
    for k, item in enumerate(images):
        x = prepare(item, backbone.planes, size=size,
                    patch_size=backbone.vit.patch_size).x
        if x is None:
            msg = f'images[{k}]: all pixels are masked or equal'
            raise ValueError(msg)
        yield x.to(backbone.vit.cls_token.device)


def _tokens(images, backbone, size):
    """Yield the patch tokens of each image, (dim, gy, gx), on the CPU."""
    for x in _inputs(images, backbone, size):
        with torch.inference_mode():
            tokens = backbone.vit.forward_features(x[None]).patches[-1][0]
        yield tokens.float().cpu().clone()


def patch_maps(images, backbone=None, *, size=None):
    """
    Yield the patch tokens of images, as of `embed`, (dim, gy, gx) float32: of
    the last layer, after its norm.
    """
    backbone = load_backbone(backbone)
    for tokens in _tokens(images, backbone, check_size(size)):
        yield tokens.numpy()


def pca_rgb(maps):
    """
    Colours, (gy, gx, 3) uint8 each, of (dim, gy, gx) patch tokens: the first
    three principal components of all maps together, the sky's too, 1% of the
    patches being darkest and 1% brightest (Oquab et al. 2023,
    arXiv:2304.07193, figure 1).
    """
    decomposition = require('sklearn.decomposition', 'probe')
    tokens = np.concatenate([one.reshape(len(one), -1).T for one in maps])
    parts = decomposition.PCA(3, svd_solver='covariance_eigh').fit_transform(
        tokens.astype(float))
    low, high = np.percentile(parts, [1, 99], axis=0)
    parts = (parts - low) / np.maximum(high - low, 1e-12)
    colours = (255 * parts.clip(0, 1)).round().astype(np.uint8)
    ends = np.cumsum([one[0].size for one in maps])
    return [part.reshape(*one.shape[1:], 3) for part, one in
            zip(np.split(colours, ends[:-1]), maps)]
