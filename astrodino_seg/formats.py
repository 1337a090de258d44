# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Results in the forms of other programs: regions, sky coverage, NDData, and
catalogues as SExtractor, LSST and the Virtual Observatory write them.
"""

import tomllib
import warnings
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io.votable import from_table
from astropy.io.votable.tree import CooSys
from astropy.nddata import CCDData, NDData, StdDevUncertainty
from astropy.table import Column, QTable, Table, vstack
from regions import PolygonSkyRegion, Regions
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from astrodino_seg.catalog import measure
from astrodino_seg.errors import require
from astrodino_seg.flags import FLAGS, neighbours
from astrodino_seg.image import ds9_positions, in_icrs
from astrodino_seg.predict.decode import Grouping

__all__ = ['lsst_table', 'sextractor_table', 'to_moc', 'to_nddata',
           'to_regions', 'to_votable']

#: The bit of SExtractor's FLAGS for each of ours that it has.
SEXTRACTOR_FLAGS = {'masked': 1, 'blended': 2, 'saturated': 4, 'edge': 8,
                    'uncovered': 32, 'part_covered': 32}
#: Unified content descriptors (IVOA) by the starts of names of columns.
UCDS = {column: ucd for ucd, columns in tomllib.loads(
    (Path(__file__).parent / 'data' / 'ucds.toml').read_text()).items()
    for column in columns.split()}


def to_regions(result, *, sky=True):
    """
    The outlines of labels.

    Parameters
    ----------
    result : `~astrodino_seg.SegmentationResult`
        The segmentation.
    sky : bool, optional
        Whether they are on the sky, in the frame of the image if DS9 has it
        and else in ICRS; in pixels if there is no WCS.

    Returns
    -------
    regions : `~regions.Regions`
        One polygon an island of a label; ``meta['text']`` has the label and
        the class.
    """
    regions = []
    for region, row in zip(
            result.segmentation_image.to_regions(group=True), result.table):
        parts = region if isinstance(region, (list, Regions)) else [region]
        for part in parts:
            if sky and (at := ds9_positions(
                    result.image, *part.vertices.xy)) is not None:
                part = PolygonSkyRegion(at)
            part.meta['text'] = f'{row["label"]} {row["class"]}'
            regions.append(part)
    return Regions(regions)


def to_moc(image, *, max_order=None):
    """
    The sky that an image covers, without its invalid pixels.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image, with a WCS.
    max_order : int, optional
        The HEALPix order of the smallest cells; of the largest that are
        smaller than 4 x 4 pixels by default. Cells are not smaller than a
        pixel.

    Returns
    -------
    moc : `mocpy.MOC`
        All cells with the centre of a pixel that a band has.

    Raises
    ------
    ImportError
        If mocpy is not installed.
    ValueError
        If the image has no WCS whose frame is known.
    """
    require('mocpy', 'moc')
    from mocpy import MOC

    y, x = np.nonzero(~image.mask.all(axis=0))
    sky = in_icrs(image.sky(x, y))
    if sky is None:
        msg = 'image has no WCS whose frame is known'
        raise ValueError(msg)
    area = image.wcs.proj_plane_pixel_area().to_value(u.sr)
    finest = int(np.log2(np.pi / 3 / area) / 2)     # as large as a pixel
    order = max(finest - 1, 0) if max_order is None else max_order
    return MOC.from_skycoords(sky, max_norder=min(order, finest))


def to_nddata(image, band=None):
    """
    An image as astropy has it, which `~astrodino_seg.as_image` takes back.

    Parameters
    ----------
    image : `~astrodino_seg.Image`
        The image.
    band : str, optional
        One band; all, as (band, y, x), if `None`.

    Returns
    -------
    data : `~astropy.nddata.CCDData` or `~astropy.nddata.NDData`
        Of one band the first, whose unit is 1 if the image has none, and
        which writes a FITS file. With mask, uncertainty, WCS and unit, and the
        names of the bands in ``meta``. Masked pixels are NaN.
    """
    if band is not None and band not in image.bands:
        msg = f'band must be one of {image.bands}, got {band!r}'
        raise ValueError(msg)
    where = slice(None) if band is None else image.bands.index(band)
    pedestal = np.array(image.pedestal)[:, None, None]
    pixels = image.cube[where]
    if pedestal.any():
        pixels = pixels + pedestal[where]
    pixels = np.where(image.mask[where], np.nan, pixels)
    options = {
        'mask': image.mask[where].copy(), 'unit': image.unit,
        'uncertainty': None if image.noise is None else StdDevUncertainty(
            image.noise[where].copy()),
        'wcs': None if image.wcs is None else image.wcs.deepcopy()}
    if band is None:
        return NDData(pixels, meta={'BANDS': ','.join(image.bands)},
                      **options)
    options['unit'] = options['unit'] or u.dimensionless_unscaled
    return CCDData(pixels, meta={'FILTER': band}, **options)


def sextractor_table(result):
    """
    The catalogue with the names and conventions of SExtractor.

    Parameters
    ----------
    result : `~astrodino_seg.SegmentationResult`
        The segmentation.

    Returns
    -------
    table : `~astropy.table.QTable`
        ``NUMBER``; ``X_IMAGE``, ``Y_IMAGE``, where the first pixel is 1;
        ``ALPHA_J2000``, ``DELTA_J2000`` with a WCS whose frame is known;
        ``XMIN_IMAGE`` and so on, the box; ``ISOAREA_IMAGE``; ``FLUX_ISO``,
        ``FLUXERR_ISO``, of the label; ``FLUX_AUTO``, ``FLUXERR_AUTO``, which
        are the model's total fluxes and no Kron fluxes; ``FLUX_RADIUS``;
        ``CLASS_STAR``, the probability of a star; ``FLAGS`` with the bits of
        SExtractor: 1 masked pixels, 2 blended, 4 saturated, 8 at the edge, 32
        a band lacks pixels. Where there are several bands, names of fluxes end
        in ``_<band>``.
    """
    old, new = result.table, QTable()
    boxes = result.segmentation_image.bbox
    new['NUMBER'] = old['label']
    for axis in 'xy':
        new[f'{axis.upper()}_IMAGE'] = (old[f'{axis}_centroid'] + 1) * u.pix
    sky = in_icrs(old.columns.get('sky_centroid'))
    if sky is not None:
        new['ALPHA_J2000'], new['DELTA_J2000'] = sky.ra, sky.dec
    for name, value in (('XMIN', 'ixmin'), ('XMAX', 'ixmax'),
                        ('YMIN', 'iymin'), ('YMAX', 'iymax')):
        # the first pixel is 1, and the last of the box is within
        new[f'{name}_IMAGE'] = np.array(
            [getattr(box, value) + name.endswith('MIN') for box in boxes],
            np.int32) * u.pix
    new['ISOAREA_IMAGE'] = old['area']
    for band in result.image.bands:
        end = f'_{band}' if result.image.n_bands > 1 else ''
        for ours, name in (('flux', 'ISO'), ('total_flux', 'AUTO')):
            if f'{ours}_{band}' in old.colnames:
                new[f'FLUX_{name}{end}'] = old[f'{ours}_{band}']
                new[f'FLUXERR_{name}{end}'] = old[f'{ours}_err_{band}']
    if 'half_light_radius' in old.colnames:
        new['FLUX_RADIUS'] = old['half_light_radius']
    if 'p_star' in old.colnames:
        new['CLASS_STAR'] = old['p_star']
    new['FLAGS'] = np.bitwise_or.reduce([
        np.where(old['flags'] & FLAGS[name] > 0, bit, 0)
        for name, bit in SEXTRACTOR_FLAGS.items()]).astype(np.int16)
    new.meta.update(old.meta, flags=(
        'bad=1, blended=2, saturated=4, edge=8, incomplete=32'))
    return new


def lsst_table(result):
    """
    The catalogue with blends and their objects, as LSST's tables have them.

    Parameters
    ----------
    result : `~astrodino_seg.SegmentationResult`
        The segmentation.

    Returns
    -------
    table : `~astropy.table.QTable`
        That of the result, and below it one row a blend, which is all labels
        that touch, with labels that follow the last object's; of no class.
        More columns: ``parent``, the label of the blend that an object is in,
        or 0; ``nChild``, the objects of a blend, 0 of an object;
        ``isPrimary``, true of all objects, each of which is physical, and
        false of blends.
    """
    groups, n = result.segmentation_image.data, len(result.table)
    pairs = neighbours(groups)[0]
    _, blend = connected_components(coo_array(
        (np.ones(pairs.shape[1]), pairs), shape=(n + 1, n + 1)))
    size = np.bincount(blend)
    number = np.cumsum(size > 1) * (size > 1)       # of what touches nothing 0
    parent = number[blend].astype(np.int32)
    n_blends = int(number.max())
    own = result.table.copy()
    own['parent'] = np.where(parent[1:] > 0, n + parent[1:], 0)
    own['nChild'], own['isPrimary'] = np.int32(0), True
    if n_blends == 0:
        return own
    size, unknown = size[size > 1], np.full(
        (n_blends, len(result.class_names) - 1), np.nan)
    blends = measure(result, Grouping(
        parent[groups], parent[groups], {}, np.arange(n_blends),
        unknown[:, 0], size), unknown)
    blends['class'] = np.full(n_blends, '', own['class'].dtype)
    blends['label'] += np.int32(n)
    blends['parent'], blends['nChild'] = np.int32(0), size.astype(np.int32)
    blends['isPrimary'] = False
    return vstack([own, blends], metadata_conflicts='silent')


def to_votable(table):
    """
    A catalogue as the Virtual Observatory has it, for TOPCAT and the like.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Of a result, of `sextractor_table` or of `lsst_table`.

    Returns
    -------
    votable : `~astropy.io.votable.tree.VOTableFile`
        Positions are ``ra`` and ``dec`` (degrees) of a COOSYS, which is ICRS,
        columns have UCDs, and units that VOUnit does not know are in the
        descriptions. Its ``to_xml(path)`` writes it.
    """
    new = Table()
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            sky = in_icrs(table[name])
            if sky is not None:
                new['ra'], new['dec'] = sky.ra, sky.dec
            continue
        value = table[name]
        if getattr(value, 'unit', None) is not None:
            new[name] = Column(value.value)
            with warnings.catch_warnings():     # of units that are near
                warnings.simplefilter('ignore', u.UnitsWarning)
                try:
                    value.unit.to_string('vounit')
                    new[name].unit = value.unit
                except ValueError:
                    new[name].description = f'in {value.unit}'
        else:
            new[name] = value
    for name in new.colnames:
        known = [one for one in UCDS if name == one or (
            one.endswith('_') and name.startswith(one))]
        if known:
            new[name].meta['ucd'] = UCDS[max(known, key=len)]
    file = from_table(new)
    system = CooSys(ID='sky', system='ICRS')
    for field in file.get_first_table().fields:
        if (field.ucd or '').startswith('pos.eq.'):
            field.ref = system.ID
            file.resources[0].coordinate_systems[:] = [system]
    file.description = '; '.join(
        f'{key}: {", ".join(value) if isinstance(value, list) else value}'
        for key, value in table.meta.items())
    return file
