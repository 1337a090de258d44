# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`DinoSegmenter`: a multi-band image in, a `SegmentationImage` out.
"""

import os
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from numbers import Integral, Real
from typing import Any

import torch
from astropy.wcs import WCS
from numpy.typing import ArrayLike
from photutils.segmentation import SegmentationImage
from photutils.utils.exceptions import NoDetectionsWarning

from astrodino_seg.errors import AstroDinoUserWarning, check_settings
from astrodino_seg.models.backbone import DenseModel, has_bfloat16
from astrodino_seg.models.load import load_model
from astrodino_seg.predict.decode import MERGE, MIN_SEED
from astrodino_seg.predict.tiles import CONTEXT, STEP, TILE_SIZE
from astrodino_seg.result import (
    SegmentationResult,
    images_of,
    read,
    results_of,
    segment_all,
)

__all__ = ['DinoSegmenter', 'detect_sources']

LEAST_TILE = 2 * CONTEXT + STEP
# for each parameter what `check_settings` takes
_RULES = {
    'n_pixels': (Integral, lambda v: v >= 1, 'a positive integer'),
    'connectivity': (Integral, lambda v: v in (4, 8), '4 or 8'),
    'n_sigma': ((Real, type(None)), lambda v: v is None or v > 0,
                'a positive number or None'),
    'merge': (Real, lambda v: 0 <= v <= 1, 'a number in [0, 1]'),
    'min_seed': (Real, lambda v: 0 < v < 1, 'a number in (0, 1)'),
    'bin_factor': ((Integral, type(None)),
                   lambda v: v is None or 1 <= v <= 64,
                   'an integer from 1 to 64 or None'),
    'tile_size': (Integral, lambda v: v >= LEAST_TILE and v % STEP == 0,
                  f'a multiple of {STEP}, {LEAST_TILE} or more'),
    'symmetric': (bool, lambda v: True, 'a bool'),
    'bfloat16': ((bool, type(None)), lambda v: True, 'a bool or None')}
# arguments that photutils.segmentation.SourceFinder has, and we have not
_OF_SOURCE_FINDER = {'deblend', 'n_levels', 'nlevels', 'contrast', 'mode',
                     'relabel', 'n_processes', 'nproc'}


def _replaced(n_pixels, others):
    """``n_pixels``; it is said what takes the place of ``others``."""
    n_pixels = others.pop('npixels', n_pixels)      # its name of before
    for name in others:
        if name not in _OF_SOURCE_FINDER:
            msg = f'DinoSegmenter has no argument {name!r}'
            raise TypeError(msg)
    names = [name for name, value in others.items() if value is not True]
    if names:
        msg = (f'{", ".join(names)} of SourceFinder is not used: a model '
               f'tells objects apart; merge, from 0 (splits) to 1, dials it')
        warnings.warn(msg, AstroDinoUserWarning, stacklevel=3)
    return n_pixels


class DinoSegmenter:
    """
    Find objects in a multi-band image, each physical object as one label.

    The bands are put in noise units and given to a DINO vision transformer
    with a grouping head, which draws a mask from each object's centre and
    joins the masks that belong to one object. It is called like
    `photutils.segmentation.SourceFinder`.

    Parameters
    ----------
    n_pixels : int, optional
        The number of connected pixels that an object must have (above
        ``threshold``, if there is one).
    connectivity : {8, 4}, optional
        How pixels are connected for ``n_pixels``: by edges and corners, or
        by edges only.
    n_sigma : float, optional
        Keep objects that have ``n_pixels`` connected pixels above this S/N
        of all bands together. Where noise is correlated, its unit is that of
        sums over 4 x 4 pixels, and not of single pixels. Ignored if a
        ``threshold`` is given.
    merge : float, optional
        The merge/split dial in [0, 1]. Two groups of pieces are joined as
        long as the mean probability that two of their pieces are one object
        exceeds ``1 - merge``: 0 joins nothing, a larger value only ever joins
        more.
    min_seed : float, optional
        The least probability, in (0, 1), that a piece is of an object at all.
    bin_factor : int, optional
        Pixels, in x and in y, that are binned before the network looks at the
        image and at its binned copies; its maps are interpolated back. `None`
        is 1, and for semantic models what
        `~astrodino_seg.inputs.channels.oversampling` says.
    model : `~astrodino_seg.Model`, \
            `~astrodino_seg.models.SemanticModel` or path-like, \
            optional
        The model, which is copied at each call, or its weights file, which
        is read at the first, or the name of a bundled one. The default model
        if `None`. A semantic model tells classes alone: each connected
        region of one class is a label, whatever touches in it, and ``merge``
        and ``min_seed`` are ignored.
    device : str, optional
        Where the network runs, for example ``'cpu'`` or ``'cuda'``.
    bfloat16 : bool, optional
        Whether the network runs in bfloat16, which moves the outlines of
        some objects by a pixel. `None` if the processor has instructions for
        it, and is then twice as fast. A semantic model runs in float32.
    tile_size : int, optional
        The side in pixels, a multiple of 16, of the tiles that a larger
        image is cut into; that of the crops of training. Larger ones take
        less time, and less is found in them.
    symmetric : bool, optional
        Whether the network sees the image and its three flips, and what it
        says of them is averaged: labels depend less on how objects lie on
        the grid of its patches. It takes two to three times as long, and
        the maps of all four are in memory.
    progress_bar : bool, optional
        Whether to show a progress bar.
    **others
        Other arguments of `~photutils.segmentation.SourceFinder`, which are
        not used, with a warning that says what takes their place.

    Examples
    --------
    >>> from astrodino_seg import DinoSegmenter
    >>> finder = DinoSegmenter(n_pixels=10)
    >>> segm = finder(data, threshold)  # doctest: +SKIP
    """

    def __init__(self, n_pixels: int = 5, *, connectivity: int = 8,
                 n_sigma: float | None = None, merge: float = MERGE,
                 min_seed: float = MIN_SEED, bin_factor: int | None = None,
                 model: DenseModel | str | os.PathLike | None = None,
                 device: str = 'cpu', bfloat16: bool | None = None,
                 tile_size: int = TILE_SIZE, symmetric: bool = False,
                 progress_bar: bool = False, **others: Any) -> None:
        self.n_pixels = _replaced(n_pixels, others)
        self.connectivity = connectivity
        self.n_sigma = n_sigma
        self.merge = merge
        self.min_seed = min_seed
        self.bin_factor = bin_factor
        self.model = model
        self.device = device
        self.bfloat16 = bfloat16
        self.tile_size = tile_size
        self.symmetric = symmetric
        self.progress_bar = progress_bar

    def __repr__(self):
        values = ', '.join(f'{k}={v!r}' for k, v in vars(self).items()
                           if not (k.startswith('_') or k.endswith('_')
                                   or k == 'model'))
        return f'{type(self).__name__}({values})'

    def __call__(self, data: Any, threshold: Any = None,
                 mask: ArrayLike | None = None, *, error: Any = None,
                 background: Any = None, wcs: WCS | None = None,
                 bands: Sequence[str] | None = None,
                 ) -> SegmentationImage | None:
        """
        Segment an image.

        Parameters
        ----------
        data : `~astropy.nddata.NDData`, array_like, dict, path-like or other
            The image: see `~astrodino_seg.as_image` for all that is taken.
        threshold : float, array_like, `~astropy.units.Quantity` or dict, \
                optional
            The detection threshold, a pixel value in the unit of ``data``
            (background included, as in
            `~photutils.segmentation.detect_sources`): one number, an image,
            or one number or image a band (in the order of the input, or a
            dict of band names). An object is kept if it has ``n_pixels``
            connected pixels that are each above it in at least one band.
            How far an object then reaches is drawn by the model and not cut
            at the threshold.
        mask : array_like of bool, optional
            `True` where ``data`` is not to be used; (y, x) or
            (band, y, x).
        error : array_like or `~astropy.units.Quantity`, optional
            1-sigma errors, in place of those that ``data`` may carry.
        background : {'none', 'flat'}, float, array_like, \
                `~astropy.units.Quantity`, \
                `~photutils.background.Background2D` or dict, optional
            What is subtracted. If `None`, it is measured in boxes, beside
            the objects and their faint outskirts; ``'flat'`` takes the median
            of these, one number a band; ``'none'`` is for images without a
            background; or it is this number or image, or one a band as of
            ``threshold``.
        wcs : `~astropy.wcs.WCS`, optional
            The celestial WCS, in place of the one that ``data`` may carry.
        bands : sequence of str, optional
            The names of the bands.

        Returns
        -------
        segmentation_image : `~photutils.segmentation.SegmentationImage` or \
                `None`
            One label a physical object, int32, consecutive from 1; `None`
            if there is none.

        Warns
        -----
        NoDetectionsWarning, OutOfDomainWarning
            If no object is found; if the image is unlike others.
        """
        return self._first(images_of, data, threshold, mask=mask, error=error,
                           background=background, wcs=wcs, bands=bands)

    def segment(self, data: Any, threshold: Any = None, *,
                mask: ArrayLike | None = None, error: Any = None,
                background: Any = None, wcs: WCS | None = None,
                bands: Sequence[str] | None = None,
                ) -> SegmentationResult | None:
        """
        Segment an image and return all that was found.

        Parameters
        ----------
        data, threshold, mask, error, background, wcs, bands
            As when the segmenter is called.

        Returns
        -------
        result : `SegmentationResult` or `None`
            Labels, fragments, classes and table; `None` without objects.

        Warns
        -----
        NoDetectionsWarning
            If no object is found.
        OutOfDomainWarning
            If the image is unlike those that the model copes with.
        """
        return self._first(results_of, data, threshold, mask=mask, error=error,
                           background=background, wcs=wcs, bands=bands)

    def _first(self, found_in, *data, **planes):
        """What of an image is found; it is said if that is `None`."""
        check_settings({name: getattr(self, name) for name in _RULES}, _RULES)
        found = next(found_in(self, [read(self, *data, **planes)]))
        if found is None:
            warnings.warn('No sources were found.', NoDetectionsWarning,
                          stacklevel=3)
        return None if found is False else found

    def segment_many(self, images: Any, threshold: Any = None, *,
                     mask: Any = None, error: Any = None,
                     background: Any = None,
                     bands: Sequence[str] | None = None) -> Iterator:
        """
        Segment many images; small ones pass the network together.

        Parameters
        ----------
        images : iterable, array_like or path-like
            Images, each as of `segment`: a list, an array (image, band, y, x)
            or (image, y, x), `~astrodino_seg.embed.cutouts` around
            positions; or a folder, of which the FITS files are taken in the
            order of their names.
        threshold, background, bands : optional
            As of `segment`, for all images.
        mask, error : optional
            As of `segment`, for all images; or a list, or an array (image,
            band, y, x), of one for each.

        Yields
        ------
        result : `SegmentationResult`, `None` or `Exception`
            Of each image, in their order: what `segment` gives, or the error
            that it would raise, so that no image ends the run. Labels are
            those of `segment`, but for single pixels in bfloat16.

        Examples
        --------
        >>> stamps = np.zeros((1000, 4, 160, 160))  # doctest: +SKIP
        >>> tables = [one.table for one in finder.segment_many(stamps)
        ...           if one]  # doctest: +SKIP
        """
        check_settings({name: getattr(self, name) for name in _RULES}, _RULES)
        return segment_all(self, images, threshold=threshold, mask=mask,
                           error=error, background=background, bands=bands)

    def _fetch_model(self):
        """The model, ready to run; a file is read once."""
        model, key = self.model, (self.model, self.device, self.bfloat16)
        if model is None or isinstance(model, (str, os.PathLike)):
            if getattr(self, '_key', None) == key:
                return self.model_
            model = load_model(model)
        elif isinstance(model, DenseModel):
            model = deepcopy(model)     # the caller's is left as it is
        else:
            msg = ('model must be a Model, a path or None, got '
                   f'{type(model).__name__}')
            raise TypeError(msg)
        try:
            self.model_ = model.fused().to(torch.device(self.device))
            for part in (getattr(model, 'decision', None), model.totals):
                if part is not None:    # of few numbers, that are there
                    part.cpu()
        except (RuntimeError, AssertionError, TypeError) as err:
            reason = (str(err) or type(err).__name__).split('\n')[0]
            msg = f'device {self.device!r} cannot be used: {reason}'
            raise ValueError(msg) from err
        self._key = key
        model.run_in(has_bfloat16(self.device) if self.bfloat16 is None
                     else self.bfloat16)
        return self.model_


def detect_sources(data: Any, threshold: Any, n_pixels: Any = None, *,
                   connectivity: int = 8, mask: ArrayLike | None = None,
                   **options: Any) -> SegmentationImage | None:
    """
    Segment an image as `photutils.segmentation.detect_sources` is called.

    Objects that touch are told apart, so that nothing is left to deblend.

    Parameters
    ----------
    data, threshold, mask
        As `DinoSegmenter` is called with.
    n_pixels : int
        The number of connected pixels above the threshold that an object
        must have.
    connectivity : {8, 4}, optional
        How pixels are connected.
    **options
        Other arguments of `DinoSegmenter`.

    Returns
    -------
    segm : `~photutils.segmentation.SegmentationImage` or `None`
        One label a physical object; `None` if there is no object.
    """
    finder = DinoSegmenter(n_pixels=n_pixels, connectivity=connectivity,
                           **options)
    return finder(data, threshold, mask)
