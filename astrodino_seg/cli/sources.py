# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What commands on many images share: where these come from, and the options of
the network that sees them.
"""

from pathlib import Path

__all__ = ['add_network_options', 'load_network', 'open_images']

TABULAR = ('.h5', '.hdf5', '.parquet')


def add_network_options(add):
    """The options of commands that embed images."""
    add('--backbone', metavar='NAME',
        help='a weights file, or a name of timm; default: bundled')
    add('--what', choices=('cls', 'patch', 'both'), default='cls',
        help='the CLS token, the mean of the patch tokens, or both '
             '(%(default)s)')
    add('--batch-size', type=int, default=32, metavar='N',
        help='images at a time (%(default)s)')
    add('--workers', type=int, default=0, metavar='N',
        help='processes that read images (%(default)s: this one)')
    add('--device', default='cpu', help='for example cuda (%(default)s)')
    add('-q', '--quiet', action='store_true', help='no progress bar')


def load_network(args):
    """The backbone that the options ask for, on its device."""
    from astrodino_seg.models.load import load_backbone

    backbone = load_backbone(args.backbone)
    try:
        backbone.vit.to(args.device)
    except (RuntimeError, AssertionError) as err:
        msg = f'device: {args.device!r} cannot be used: {err}'
        raise ValueError(msg) from err
    return backbone


def open_images(names, bands=None, *, quiet=True):
    """
    The images of a folder of FITS files or of pictures, of a table of paths,
    of Galaxy10 in a file or a folder of files, or of some FITS files.
    """
    from astropy.table import Table

    from astrodino_seg.datasets import FolderImages, Galaxy10, PictureFolder

    path = Path(names[0])
    options = {'bands': bands, 'progress_bar': not quiet}
    if len(names) > 1 or path.suffix not in (
            *TABULAR, '.csv', '.ecsv', '.txt', ''):
        return FolderImages(Table({'path': names}), **options)
    if path.is_dir():
        try:
            return PictureFolder(path)
        except FileNotFoundError:
            inside = {one.suffix for one in path.rglob('*')}
            if inside & {*TABULAR} and not inside & {'.fits', '.fz', '.gz'}:
                return Galaxy10(path)
            return FolderImages(path, **options)
    if path.suffix in TABULAR:
        return Galaxy10(path)
    return FolderImages(path, **options)
