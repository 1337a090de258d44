# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Images of the Multimodal Universe: Legacy Surveys, HSC, JWST, Galaxy10. The
layouts are those of https://github.com/MultimodalUniverse, as Parquet on the
Hugging Face hub, which ``datasets`` streams, and as HDF5. What they call
``mask`` is True for *good* pixels.
"""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import astropy.units as u
import numpy as np

from astrodino_seg.datasets.folder import data_files, picture_image, readable
from astrodino_seg.datasets.pictures import as_text
from astrodino_seg.errors import SkippedWarning, require
from astrodino_seg.image import as_image

PER_BAND = ('band', 'flux', 'ivar', 'mask', 'psf_fwhm', 'scale')


def record_image(record):
    """The image of one record."""
    if record.get('image') is not None:
        return _flux_image(_by_band(record['image']))
    if record.get('rgb_image') is not None:
        rgb = np.asarray(record['rgb_image'])
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[-1] != 3:
            msg = (f'record: rgb_image must be uint8 of shape (y, x, 3), got '
                   f'{rgb.dtype} of shape {rgb.shape}')
            raise ValueError(msg)
        return picture_image(rgb)
    msg = f'record has neither image nor rgb_image; it has {sorted(record)}'
    raise ValueError(msg)


def record_metadata(record):
    """What a record says besides its pixels."""
    out = {key: value.item() if isinstance(value, np.generic) else value
           for key, value in record.items()
           if isinstance(value, (str, int, float, bool, np.generic))}
    if 'object_id' in record:
        out['object_id'] = str(as_text([record['object_id']])[0])
    if record.get('image') is not None:
        planes = _by_band(record['image'])
        for key in ('psf_fwhm', 'scale'):
            if key in planes:
                out[key] = {str(band): float(value) for band, value in
                            zip(planes['band'], planes[key])}
    return out


class MultimodalImages(Iterable):
    """
    A dataset of the Multimodal Universe, image by image.

    Memory does not grow with the number of images. Needs the extra
    ``survey``.

    Parameters
    ----------
    source : str, path-like or iterable
        The name of a dataset on the Hugging Face hub, such as
        ``'MultimodalUniverse/legacysurvey'``; a folder of Parquet or HDF5
        files, or one that ``Dataset.save_to_disk`` wrote; or what gives
        records, such as a ``datasets.Dataset``.
    name : str, optional
        The configuration on the hub, if there are several.
    split : str, optional
        The split on the hub; local files of HDF5 and Parquet have one.
    streaming : bool, optional
        Whether to read from the hub while going through the dataset, or to
        download it first.

    Raises
    ------
    FileNotFoundError
        If a folder has no such files.
    ValueError
        If a file is damaged; when it is reached.

    Examples
    --------
    >>> from astrodino_seg.datasets import MultimodalImages
    >>> images = MultimodalImages(
    ...     'MultimodalUniverse/legacysurvey')  # doctest: +SKIP
    >>> for image, metadata in images.records():  # doctest: +SKIP
    ...     print(metadata['object_id'], image)
    """

    def __init__(self, source, *, name=None, split='train', streaming=True):
        self.source, self.name = source, name
        self.split, self.streaming = split, streaming

    def __iter__(self):
        """Iterate over the images; see `records`."""
        for image, _ in self.records():
            yield image

    def records(self):
        """
        Iterate over the images and what is known of them.

        Yields
        ------
        image : `~astrodino_seg.Image`
            As of `record_image`.
        metadata : dict
            As of `record_metadata`.

        Warns
        -----
        SkippedWarning
            At the end, if records could not be used.
        """
        skipped = []
        for i, record in enumerate(self._open()):
            try:
                image = record_image(record)
            except (ValueError, TypeError) as err:
                skipped.append((i, str(err)))
                continue
            yield image, record_metadata(record)
        if skipped:
            warnings.warn(SkippedWarning('records', skipped))

    def _open(self):
        """The records, from wherever they come."""
        if not isinstance(self.source, (str, Path)):
            return self.source
        folder = Path(self.source)
        if not folder.exists():
            if len(folder.parts) != 2 or folder.is_absolute():
                msg = f'source: no folder {str(folder)!r}'
                raise FileNotFoundError(msg)
            return self._hub(str(self.source), name=self.name)
        if (folder / 'state.json').exists():
            return require('datasets', 'survey').load_from_disk(
                folder).with_format('numpy')
        files = data_files(folder, ('.h5', '.hdf5', '.parquet'))
        hdf5 = [file for file in files if file.suffix != '.parquet']
        if hdf5:
            return (record for file in hdf5 for record in _read_hdf5(file))
        return self._hub('parquet', data_files={
            self.split: [str(file) for file in files]})

    def _hub(self, path, **options):
        datasets = require('datasets', 'survey')
        return datasets.load_dataset(
            path, split=self.split, streaming=self.streaming,
            **options).with_format('numpy')


def _by_band(planes):
    """A dict of arrays of a record's ``image``."""
    if not isinstance(planes, Mapping):
        planes = {key: [one[key] for one in planes] for key in planes[0]}
    missing = {'band', 'flux'} - set(planes)
    if missing:
        msg = f'record: image has no {sorted(missing)}, only {sorted(planes)}'
        raise ValueError(msg)
    return planes


def _flux_image(planes):
    bands = [str(one) for one in planes['band']]
    mask = noise = None
    if planes.get('mask') is not None:
        mask = ~np.asarray(planes['mask'], dtype=bool)
    if planes.get('ivar') is not None:
        ivar = np.asarray(planes['ivar'], dtype=float)
        # HSC's is the largest number where the variance is 0
        known = (ivar > 0) & (ivar < np.finfo(np.float32).max)
        noise = np.full(ivar.shape, np.nan)
        noise[known] = ivar[known]**-0.5
    flux = np.asarray(planes['flux'], dtype=np.float32)
    if all(band.lower().startswith('des-') for band in bands):
        flux = flux * u.Unit('nmgy')
    return as_image(flux, bands=bands, mask=mask, error=noise)


def _read_hdf5(path):
    """The records of one HDF5 file."""
    h5py = require('h5py', 'survey')
    with readable(path):
        file = h5py.File(path, 'r')
    with file:
        # the flux is called so for JWST, and image_array for the others
        flux = 'image_flux' if 'image_flux' in file else 'image_array'
        columns = {'flux': flux} | {key: f'image_{key}' for key in PER_BAND
                                    if key != 'flux'}
        missing = set(columns.values()) - set(file)
        if missing:
            msg = (f'source: {str(path)!r} has no {sorted(missing)}; it has '
                   f'{sorted(file)}')
            raise ValueError(msg)
        with readable(path):
            scalars = {key: file[key][:] for key in file if
                       file[key].ndim == 1}
        for i in range(len(file[flux])):
            with readable(path):
                planes = {key: file[name][i] for key, name in columns.items()}
            planes['band'] = as_text(planes['band'])
            if planes['mask'].ndim < planes['flux'].ndim:  # one for all
                planes['mask'] = np.broadcast_to(planes['mask'],
                                                 planes['flux'].shape)
            yield {'image': planes} | {key: _scalar(value[i])
                                       for key, value in scalars.items()}


def _scalar(value):
    return value.decode() if isinstance(value, bytes) else value
