# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A plugin for napari, which ``data/napari.yaml`` describes: FITS files in,
segmentation of a layer, label maps out. Nothing here imports napari.
"""

from pathlib import Path

import numpy as np

from astrodino_seg.image import (
    as_image,
    grid_of,
    read_label_map,
    write_label_map,
)
from astrodino_seg.plotting import rgb_image
from astrodino_seg.report import plain_columns


def get_reader(path):
    """The reader of a path, or of a list of them, one a band."""
    return read


def read(path):
    """
    The layer of a label map (``*_segm.fits``), or else of an image: a colour
    picture, whose ``metadata`` have the image with all bands.
    """
    if not isinstance(path, list) and '_segm' in Path(path).name:
        return [(read_label_map(path), {'name': Path(path).name}, 'labels')]
    image = as_image(path)
    first = path[0] if isinstance(path, list) else path
    return [_picture(image, Path(first).name)]


def demo():
    """The layer of the image that comes with the package."""
    from astrodino_seg.datasets import demo_image

    return [_picture(demo_image(), 'demo')]


def _picture(image, name):
    return (rgb_image(image), {'name': name, 'rgb': True,
                               'metadata': {'image': image}}, 'image')


def segment(layer: 'napari.layers.Image', merge: float = 0.22,  # noqa: F821
            n_pixels: int = 5) -> 'napari.types.LayerDataTuple':  # noqa: F821
    """
    The labels of an image layer, (y, x), (band, y, x) or a picture, with the
    catalogue as ``features`` and the result in ``metadata``.
    """
    from astrodino_seg import DinoSegmenter

    data = layer.metadata.get('image')
    if data is None:
        data = np.asarray(layer.data)
        if layer.rgb:
            data = np.moveaxis(data[..., :3], -1, 0)
    result = DinoSegmenter(merge=merge, n_pixels=n_pixels).segment(data)
    options = {'name': f'{layer.name} labels'}
    if result is None:              # which a warning has told
        return np.zeros(as_image(data).shape, np.int32), options, 'labels'
    features = {one['name']: one['values']
                for one in plain_columns(result.table)}
    features['index'] = features.pop('label')       # napari's name for it
    options |= {'features': features,
                'metadata': {'result': result, 'image': result.image}}
    return result.segmentation_image.data.copy(), options, 'labels'


def write(path, labels, attributes):
    """Write a label map, with the WCS if its image is known."""
    image = attributes.get('metadata', {}).get('image')
    write_label_map(path, labels, grid_of(labels) if image is None else image,
                    overwrite=True)     # napari has asked
    return [path]
