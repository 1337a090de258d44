# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Cutouts of one image, around positions of a catalogue or around labels. A
cutout is made when it is asked for. What lies beyond the edge of the image is
masked, and the cutout is flagged.
"""

from operator import index

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import overlap_slices
from astropy.table import QTable, Table
from photutils.segmentation import SegmentationImage

from astrodino_seg.datasets.folder import Images
from astrodino_seg.datasets.tables import (
    as_table,
    pixel_positions,
    read_positions,
    sky_columns,
)
from astrodino_seg.image import Image, as_image, in_icrs, sky_to_pixels
from astrodino_seg.models.backbone import check_size
from astrodino_seg.truth import consecutive

#: Bits of the column ``flags``: part of it is beyond the edge; it has no valid
#: pixels, or all are equal; its position is not on the image; it cannot be
#: read or used. The last three have no embedding.
FLAGS = {'edge': 1, 'empty': 2, 'off_image': 4, 'failed': 8}

RESERVED = {'id', 'x', 'y', 'ra', 'dec', 'flags', 'embedding'}
IDS = ('id', 'label', 'object_id', 'source_id')
MARGIN, MIN_SIDE = 1.5, 32      # of the square about a label


class Cutouts(Images):
    """
    Cutouts of one ``image``, each an `~astrodino_seg.Image` without a WCS, or
    `None` if its position is not on the image: of ``shapes`` (n, 2), rows and
    columns, at ``x`` and ``y`` of the ``table``, whose ``flags`` are bits of
    `FLAGS`. Pixels of other ``labels`` (y, x), unless `None`, are masked.
    """

    _rows = 'table', 'shapes'

    def __init__(self, image, table, shapes):
        self.image, self.table, self.labels = image, table, None
        self.shapes = np.broadcast_to(shapes, (len(table), 2)).astype(int)
        centre = np.stack([table['y'], table['x']], axis=-1)
        with np.errstate(invalid='ignore'):
            on = ((centre > -0.5) & (centre <= np.array(image.shape) - 0.5)
                  ).all(axis=1)
            start = np.ceil(centre - self.shapes / 2)   # as overlap_slices
            over = ((start < 0) | (start + self.shapes > image.shape)
                    ).any(axis=1)
        table['flags'] = np.where(on, FLAGS['edge'] * over,
                                  FLAGS['off_image']).astype(np.int32)

    def __repr__(self):
        return f'<Cutouts: {len(self)} of {self.image!r}>'

    def _image(self, i):
        """Without a WCS; `None` if its position is not on the image."""
        image, n_bands = self.image, self.image.n_bands
        cube = self.cut(i, image.cube, np.zeros(n_bands))
        if cube is None:
            return None
        mask = self.cut(i, image.mask, np.ones(n_bands, bool))
        noise = None
        if image.noise is not None:
            inner, _ = self._overlap(i)
            noise = self.cut(i, image.noise, np.median(
                image.noise[:, *inner], axis=(1, 2)))
        return Image(cube, mask, noise, bands=image.bands, unit=image.unit,
                     order=image.order)

    def cut(self, i, planes, blank):
        """
        Cut (plane, rows, columns) of a cutout out of what was made of the
        image, (plane, y, x); ``blank`` (plane,) is what lies beyond.
        """
        i = range(len(self))[index(i)]
        if self.table['flags'][i] & FLAGS['off_image']:
            return None
        inner, outer = self._overlap(i)
        part = np.empty((len(planes), *self.shapes[i]), planes.dtype)
        part[:] = np.asarray(blank)[:, None, None]
        part[:, *outer] = planes[:, *inner]
        if self.labels is not None:
            own = self.labels[inner]
            other = (own != 0) & (own != self.table['id'][i])
            part[:, *outer][:, other] = np.asarray(blank)[:, None]
        return part

    def _overlap(self, i):
        """Where a cutout is in the image, and the image in the cutout."""
        return overlap_slices(
            self.image.shape, tuple(self.shapes[i]),
            (self.table['y'][i], self.table['x'][i]), mode='partial')


def cutouts(image, positions, size):
    """
    Cutouts around positions.

    Parameters
    ----------
    image : image-like
        What `~astrodino_seg.as_image` takes.
    positions : `~astropy.coordinates.SkyCoord`, table, path or array_like
        On the sky: coordinates, or a table (or the path of one) with
        ``ra`` and ``dec`` or a column of coordinates. In pixels, from 0: a
        table with ``x`` and ``y`` or ``x_centroid`` and ``y_centroid`` (or
        those of SExtractor, ``X_IMAGE`` and ``Y_IMAGE``, which count from 1),
        or an array (n, 2) of x and y. A DataFrame or an array with fields is
        a table, too. A table with both is on the sky if the image
        has a WCS. Its first column of ``id``, ``label``, ``object_id`` and
        ``source_id`` tells the ``id``; else rows are counted from 0.
    size : int or tuple of int
        Rows and columns in pixels, one number for both.

    Returns
    -------
    cutouts : `Cutouts`
        One a position. The centre of a cutout of an odd side is the pixel
        that the position is in; of an even side, the corner next to it.

    Raises
    ------
    ValueError
        If there are no positions, or ``size`` is not positive; if positions
        are on the sky, and one is missing, or the image has no WCS.

    Notes
    -----
    What lies beyond the edge of the image is masked, and flagged ``edge``.
    Positions that are not on the image, or not finite, are flagged
    ``off_image`` and have no cutout.
    """
    image = as_image(image)
    shape = np.array(check_size(0 if size is None else size))
    known, x, y = pixels_of(image, positions)
    if not len(x):
        msg = 'positions are empty'
        raise ValueError(msg)
    ids = next((known[name] for name in IDS if name in known.colnames),
               np.arange(len(x)))
    return Cutouts(image, _table(image, ids, x, y, known), shape)


def label_cutouts(image, segmentation, size=None, *, mask_others=False):
    """
    Cutouts around the labels of a segmentation.

    Parameters
    ----------
    image : image-like
        What `~astrodino_seg.as_image` takes.
    segmentation : `~photutils.segmentation.SegmentationImage` or array_like
        (y, x) int; 0 is no object.
    size : int or tuple of int, optional
        Rows and columns in pixels. If `None`, each is a square of 1.5 times
        the longer side of the box around its label, and 32 pixels or more.
    mask_others : bool, optional
        Whether pixels of other labels are masked.

    Returns
    -------
    cutouts : `Cutouts`
        One a label, which is its ``id``, around the centre of the box that
        holds it; see `cutouts`.

    Raises
    ------
    ValueError
        If there are no labels, or the segmentation has another shape than
        the image.
    """
    image = as_image(image)
    labels = np.asarray(getattr(segmentation, 'data', segmentation))
    if labels.shape != image.shape:
        msg = (f'segmentation has shape {labels.shape}, the image has '
               f'{image.shape}')
        raise ValueError(msg)
    # without gaps, as boxes cost memory up to the largest label
    number, names = consecutive(labels)
    segmentation = SegmentationImage(number)
    names = names[segmentation.labels]
    if not segmentation.n_labels:
        msg = 'segmentation has no labels'
        raise ValueError(msg)
    y, x = np.array([box.center for box in segmentation.bbox]).T
    if size is None:
        sides = [max(box.shape) for box in segmentation.bbox]
        sides = np.maximum(np.ceil(MARGIN * np.array(sides)), MIN_SIDE)
        size = np.stack([sides, sides], axis=-1).astype(int)
        out = Cutouts(image, _table(image, names, x, y), size)
    else:
        ids = Table({'id': names, 'x': x, 'y': y})
        out = cutouts(image, ids, size)
    out.labels = labels if mask_others else None
    return out


def plain_columns(table, without=()):
    """The columns of a table that any file can hold."""
    return [name for name in table.colnames if name not in without
            and getattr(table[name], 'ndim', 0) == 1
            and hasattr(table[name], 'dtype')
            and table[name].dtype.kind in 'biufSU']


def pixels_of(image, positions):
    """A table of what is known of positions, and their x and y."""
    if not isinstance(positions, SkyCoord):
        table = as_table(positions)
        if table is None:
            return Table(), *_columns(positions)
        positions = table
        pixels = pixel_positions(table)
        if pixels is not None and (image.wcs is None
                                   or not _has_coordinates(table)):
            return table, *pixels
    known = read_positions(positions)
    return known, *sky_to_pixels(image, SkyCoord(
        known['ra'], known['dec'], unit='deg'))


def _columns(positions):
    """x and y of an array (n, 2)."""
    unit = str(getattr(positions, 'unit', ''))
    try:
        xy = np.asarray(positions, dtype=float)
        found = f'the shape {xy.shape}, {unit}'.rstrip(', ')
    except (TypeError, ValueError):
        xy, found = np.zeros(0), type(positions).__name__
    if xy.ndim != 2 or xy.shape[1] != 2 or unit not in ('', 'pix'):
        msg = (f'positions must be coordinates, a table or an array (n, 2) '
               f'of x and y in pixels, got {found}')
        raise ValueError(msg)
    return xy.T


def _has_coordinates(table):
    return sky_columns(table) is not None or any(
        isinstance(table[name], SkyCoord) for name in table.colnames)


def _table(image, ids, x, y, known=None):
    """The table of `Cutouts`, but its flags."""
    table = QTable({'id': np.asarray(ids), 'x': np.asarray(x, float),
                    'y': np.asarray(y, float)})
    if known is not None and {'ra', 'dec'} <= set(known.colnames):
        table['ra'], table['dec'] = (u.Quantity(known[name], u.deg)
                                     for name in ('ra', 'dec'))
    else:
        sky = in_icrs(image.sky(table['x'], table['y']))
        if sky is not None:
            table['ra'], table['dec'] = sky.ra.to(u.deg), sky.dec.to(u.deg)
    for name in plain_columns(known or Table(), RESERVED):
        table[name] = known[name]
    return table
