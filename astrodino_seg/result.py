# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
`SegmentationResult`: what was found in an image, to look at, edit and report;
and from images to results: one, or many, of which small ones of one shape pass
the network together.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike

import numpy as np
from astropy.table import QTable, Table
from photutils.segmentation import SegmentationImage

from astrodino_seg.catalog import make_table
from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.files import fits_files
from astrodino_seg.image import Image, as_image
from astrodino_seg.inputs.background import background_cube, cube_of
from astrodino_seg.inputs.channels import tell_no_noise
from astrodino_seg.models.decision import Totals
from astrodino_seg.models.load import history
from astrodino_seg.predict.domain import tell_lost
from astrodino_seg.predict.instances import find_all, has_pixels, inputs_of
from astrodino_seg.truth import CLASSES

#: Images of at most `SMALL` pixels are seen so many at once: twice as many
#: take no less time for each.
AT_ONCE, SMALL = 16, 256**2


@dataclass(frozen=True, repr=False)
class SegmentationResult:
    """
    All that `DinoSegmenter.segment` finds.

    Attributes
    ----------
    segmentation_image : `~photutils.segmentation.SegmentationImage`
        One label a physical object, consecutive from 1.
    fragments : `~photutils.segmentation.SegmentationImage`
        The pieces that the objects were put together from. An object of one
        piece has the same label here; ``deblended_label_to_parent`` and
        ``parent_to_deblended_labels`` tell the objects of the others.
    class_map : `~numpy.ndarray`
        (y, x) uint8, pixel by pixel: an index into ``class_names``.
    probabilities : `~numpy.ndarray`
        (class, y, x) float32 probabilities of those classes.
    table : `~astropy.table.QTable`
        One row a label; "Quickstart" in the documentation has its columns.
    image : `~astrodino_seg.Image`
        What was segmented: all bands on one pixel grid.
    background, noise : `~numpy.ndarray`
        (band, y, x) background and 1-sigma noise that were used, in the
        image's unit. The noise is infinite in invalid pixels.
    noise_correlation : `~numpy.ndarray`
        (band, n) by how much the noise of the sum over a square exceeds that
        of independent pixels; the sides of the squares are
        `~astrodino_seg.inputs.background.SIDES`.
    totals : `~astrodino_seg.models.decision.Totals` or None
        The part of the model that tells total fluxes.
    edits : `~astropy.table.Table` or None
        What was edited since the segmentation, in order: text columns
        ``action``, ``labels``, ``x``, ``y``, ``ra``, ``dec`` and ``class``;
        see `edit`.
    class_names : tuple of str
        Sky, star, galaxy and artifact, or what else the model tells; the
        first is that of no object.
    lost : str or None
        Why the image is unlike others (`OutOfDomainWarning`), or ``''``.
    parent : `SegmentationResult` or None
        The result before the last call of `edit`, which is how to undo it.
    """

    segmentation_image: SegmentationImage
    fragments: SegmentationImage
    class_map: np.ndarray
    probabilities: np.ndarray
    table: QTable
    image: Image
    background: np.ndarray
    noise: np.ndarray
    noise_correlation: np.ndarray
    totals: Totals | None = None
    edits: Table | None = None
    class_names: tuple = CLASSES
    lost: str | None = None
    parent: 'SegmentationResult | None' = None

    def __repr__(self):
        return f'<SegmentationResult: {len(self.table)} objects; {self.image}>'

    def edit(self, edits=None, **actions):
        """
        Change labels by hand; all that follows from them is made anew.

        Parameters
        ----------
        edits : path-like, `~astropy.table.Table`, `~regions.Regions` or list \
                of `~regions.Region`, optional
            A table (of a file, CSV, ECSV or FITS) with the columns ``action``,
            ``labels``, ``x``, ``y``, ``ra``, ``dec`` and ``class``, all but
            the first optional; or regions (of a file, ``.reg``). The
            documentation, "Labels edited by hand", says what they mean.
        **actions
            Or some of these, in their order:

            ``merge=[3, 7]``
                Labels that are one object; a list of lists for several.
            ``split=3`` or ``split={3: points}``
                An object to cut into its fragments; or along the valleys of
                light between two or more points (x, y) in it.
            ``cut={3: (point, point)}``
                The same along the straight line through two points.
            ``reclassify={3: 'star'}``
                The class, one of ``class_names`` but the first.
            ``delete=3``
                A label or a list of them that are nothing.
            ``draw=polygon`` or ``draw={'galaxy': polygon}``
                A new object within corners (x, y), whatever was there. Its
                class is what the network says of its pixels if not given.

            Points can be a `~astropy.coordinates.SkyCoord`.

        Returns
        -------
        result : `SegmentationResult`
            The edited one, with labels consecutive from 1 again. Labels that
            were changed have the flag ``edited``.

        Raises
        ------
        ValueError
            If an edit cannot be understood, names no label, or nothing would
            be left.

        Warns
        -----
        AstroDinoUserWarning
            For each edit that finds nothing at its position and is left out.
        """
        from astrodino_seg.draft import edit_result  # slow to import

        return edit_result(self, edits, actions)

    def report(self, path, *, others=None, title='Segmentation', lines=()):
        """
        Write one HTML page to look at: image, labels, table, no network.

        Parameters
        ----------
        path : path-like
            The file, which is replaced if it exists.
        others : dict of str to array_like, optional
            (y, x) label maps of other tools by name, to blink with. An entry
            that is `None`, of a tool that found nothing, is left out.
        title : str, optional
            What stands above.
        lines : sequence of str, optional
            What is told of how the labels were made.

        Raises
        ------
        ValueError
            If a label map has another shape than the image.
        """
        from astrodino_seg.report import report_result  # slow to import

        report_result(self, path, others=others or {}, title=title,
                      lines=lines)


def result_of(image, normalised, lost, found, model):
    """The result of an image and what is known of it, or `None`."""
    grouping = found.grouping
    if len(grouping.seed_of) == 0:
        return None
    objects, fragments = grouping.images()
    return SegmentationResult(
        segmentation_image=objects, fragments=fragments,
        class_map=found.probabilities.argmax(0).astype(np.uint8),
        probabilities=found.probabilities,
        table=make_table(image, normalised, grouping, found.classes,
                         model.totals, model.classes[1:], lost),
        image=image, background=normalised.background,
        noise=normalised.noise, noise_correlation=normalised.correlation,
        totals=model.totals, class_names=model.classes, lost=lost)


def read(finder, data, threshold=None, *, background=None, **planes):
    """
    An image, with threshold and background of its pixels, and what gives in
    words from where they are.
    """
    image = as_image(data, **planes)
    # an Image that was handed in is itself the input
    order = range(image.n_bands) if image is data else image.order
    told = threshold, background
    if threshold is not None:
        threshold = cube_of(threshold, image, order, 'threshold')
        if finder.n_sigma is not None:
            msg = (f'n_sigma={finder.n_sigma} is not used, as there is a '
                   f'threshold')
            warnings.warn(msg, AstroDinoUserWarning)
    if background is not None:
        background = background_cube(background, image, order)
    given = {name: 'given' if np.ndim(value) or isinstance(value, Mapping)
             else value
             for name, value in zip(('threshold', 'background'), told)}
    many = (data.values() if isinstance(data, Mapping) else
            data if isinstance(data, (list, tuple)) else [data])
    lines = partial(history, [one for one in many if isinstance(
        one, (str, PathLike))], False, **given)     # reads the files again
    return image, threshold, background, lines


def results_of(finder, some):
    """
    Yield the results of what was `read`, of one shape: `None` where nothing
    was found, `False` where no noise is known to find it in.
    """
    made_by = history([], finder.model, **{
        name: value for name, value in vars(finder).items()
        if not (name.startswith('_') or name.endswith('_')
                or name in ('model', 'device', 'progress_bar'))})
    for blind, lines, *found in _found_in(finder, some):
        result = result_of(*found)
        if result is not None:
            result.table.meta['HISTORY'] = [*made_by, *lines()[1:]]
        yield False if result is None and blind else result


def images_of(finder, some):
    """As `results_of`, the `SegmentationImage` alone, without a table."""
    for blind, *_, found, _ in _found_in(finder, some, only_labels=True):
        some = len(found.grouping.seed_of) > 0
        yield (SegmentationImage(found.grouping.groups) if some
               else False if blind else None)


def _found_in(finder, some, **options):
    """Yield whether no noise is known, lines of `read`, `result_of`'s own."""
    model = finder._fetch_model()
    images, limits, backgrounds, lines = zip(*some)
    parts, planes = zip(*inputs_of(
        model, images, backgrounds, device=finder.device,
        tile_size=finder.tile_size, symmetric=finder.symmetric))
    blind = [tell_no_noise(image, one.noise)
             for image, one in zip(images, parts)]
    found = find_all(
        model, planes, [_rules(finder, *one) for one in zip(
            images, limits, parts)], n_pixels=finder.n_pixels,
        bin_factor=finder.bin_factor or model.binning(parts[0].channels),
        connectivity=finder.connectivity, merge=finder.merge,
        min_seed=finder.min_seed, tile_size=finder.tile_size,
        symmetric=finder.symmetric, device=finder.device,
        progress=finder.progress_bar, **options)
    for *one, part, this in zip(blind, lines, images, parts, found):
        yield *one, part, tell_lost(this.signs, part, model), this, model


def _rules(finder, image, limit, normalised):
    """What pixels are not used, and which labels are kept."""
    detected = True
    if limit is not None:
        pedestal = np.array(image.pedestal)[:, None, None]
        detected = ((image.cube > limit - pedestal)
                    & ~image.mask).any(axis=0)
    elif finder.n_sigma is not None:
        detected = normalised.channels[0] > np.arcsinh(
            finder.n_sigma / finder.model_.preprocess.softening)

    def keep(labels, n):
        return has_pixels(np.where(detected, labels, 0), n, finder.n_pixels,
                          finder.connectivity)

    return {'mask': ~np.isfinite(normalised.noise).any(axis=0), 'keep': keep}


def segment_all(finder, images, *, mask=None, error=None, **options):
    """As `DinoSegmenter.segment_many`, without its checks."""
    if isinstance(images, (str, PathLike)):
        images = fits_files(images)
    return segment_each(finder, (
        (data, {'mask': _own(mask, k), 'error': _own(error, k), **options})
        for k, data in enumerate(images)))


def segment_each(finder, items):
    """
    Yield a result, `None` or an error for each of pairs of an image, or an
    error in its place, and the options of `read`.
    """
    for some in _batches(partial(_try_to_read, finder), items):
        yield from _segment(finder, some)


def _own(planes, k):
    """Those of image ``k``, where there are some for each."""
    each = isinstance(planes, (list, tuple)) or np.ndim(planes) == 4
    return planes[k] if each else planes


def _try_to_read(finder, item):
    """What is segmented, or the error that it cannot be read by."""
    data, options = item
    try:
        if data is None:
            msg = 'data is None: there is no image'
            raise ValueError(msg)
        if isinstance(data, Exception):
            return data
        return read(finder, data, **options)
    except Exception as err:        # noqa: BLE001  it is handed on
        return err


def _batches(readable, items):
    """Small images of one shape that follow one another; others alone."""
    some, shape = [], None
    for one in map(readable, items):
        if not isinstance(one, Exception):
            new = one[0].shape
            if some and (new != shape or np.prod(new) > SMALL):
                yield some
                some = []
            shape = new
        some.append(one)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _segment(finder, some):
    """The results of a batch, `None` or an error each."""
    good = [one for one in some if not isinstance(one, Exception)]
    try:
        found = [one or None for one in results_of(finder, good)
                 ] if good else []
    except Exception as err:        # noqa: BLE001  of one of them
        found = [err] if len(good) == 1 else [
            _segment(finder, [one])[0] for one in good]
    found = iter(found)
    return [one if isinstance(one, Exception) else next(found)
            for one in some]
