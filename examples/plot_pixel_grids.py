# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Bands on different pixel grids
==============================

Bands of different instruments have different pixels. If each has a WCS they
can be given as they are: they are put on the grid of the finest pixels, or of
the band that ``reference`` names, and their fluxes stay what they were.
"""

from astropy.nddata import CCDData, block_reduce

from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.plotting import plot_segmentations, rgb_image, save_figure
from astrodino_seg.simulate import make_scene, observe

scene = make_scene(10, size=224, band_set='griz', psf_fwhm=3.5, density=0.5,
                   pixel_scale=0.262,
                   rates={'large': 1, 'spiral': 1000, 'group': 0, 'pair': 0,
                          'companion': 0, 'bright_star': 0, 'background': 0})
one, _ = observe(scene, 10, depth=1.5, bands=range(4), rates={
    'gradient': 0, 'missing_bands': 0, 'gap': 0, 'trail': 0, 'stripes': 0,
    'uneven_depth': 0, 'cosmic_ray': 0})


def ccd(band, factor):
    """A band, with pixels that are larger."""
    data = block_reduce(one.cube[one.bands.index(band)], factor)
    wcs = one.wcs[::factor, ::factor]
    return CCDData(data, unit='adu', wcs=wcs)


bands = {'g': ccd('g', 1), 'r': ccd('r', 1), 'i': ccd('i', 2),
         'z': ccd('z', 4)}
for band, each in bands.items():
    scale = each.wcs.proj_plane_pixel_scales()[0].to_value('arcsec')
    print(f'{band}: {each.shape}, {scale:.3f} arcsec a pixel')

image = as_image(bands)
print(f'together: {image}')

# %%
# Objects are found in all bands together, on the grid of g and r, and the
# table has the flux of each band. The piece of an arm that has a label of its
# own is a mistake, which the same galaxy does not have where all bands have
# fine pixels.
result = DinoSegmenter().segment(image)
z = image.bands.index('z')
print(f"sum of z as handed in: {bands['z'].data.sum():.0f}, on the other "
      f"grid: {image.cube[z][~image.mask[z]].sum():.0f}")
save_figure(plot_segmentations(
    rgb_image(image, result.background, result.noise),
    {'four grids': result.segmentation_image.data}, width=5),
    'pixel_grids.png')
