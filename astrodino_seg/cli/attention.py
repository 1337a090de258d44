# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino attention``.
"""

from astrodino_seg.cli.products import (
    add_image_options,
    all_or_none,
    as_prefix,
    history,
    read_images,
    refuse_existing,
)
from astrodino_seg.errors import require

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    attention = commands.add_parser(
        'attention', help='what a backbone looks at, and masks from it',
        description='Write PREFIX_attention.fits (a plane a head), '
                    'PREFIX_headN_segm.fits, PREFIX_mean_segm.fits, and '
                    'PREFIX_attention.png.')
    add = attention.add_argument
    add('images', nargs='+', metavar='IMAGE',
        help='FITS file with all bands, or one file a band')
    add_image_options(add)
    add('--backbone', metavar='NAME',
        help='a weights file, or a name of timm; default: bundled')
    add('--size', type=int,
        help='pixels a side that the network sees; default: as it is')
    add('--keep-mass', type=float, default=0.4,
        help='share of the attention that a mask holds (%(default)s); 0.6 '
             'for what DINO calls a threshold of 0.6')
    add('--at', metavar='X,Y',
        help='pixel whose attention to take, from 0; default: the CLS token')
    add('--rollout', action='store_true',
        help='follow the attention through all layers')
    add('--no-png', action='store_true', help='no picture')
    add('--overwrite', action='store_true', help='replace old products')
    attention.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    from astrodino_seg.embed import attention_maps, top_mass
    from astrodino_seg.models.files import BUNDLED_BACKBONE
    from astrodino_seg.models.load import load_backbone

    if not args.no_png:
        require('matplotlib', 'plot')
    prefix = as_prefix(args.output, args.images[0])
    top_mass([[1.0]], args.keep_mass)      # a bad value is told first
    at = None if args.at is None else _position(args.at)
    backbone = load_backbone(args.backbone)
    vit = backbone.vit
    n_maps = 1 if args.rollout else vit.dim // vit.head_dim
    ends = {'maps': '_attention.fits', 'mean': '_mean_segm.fits',
            **{k: f'_head{k + 1}_segm.fits' for k in range(n_maps)}}
    if not args.no_png:
        ends['picture'] = '_attention.png'
    paths = {kind: prefix.with_name(prefix.name + end)
             for kind, end in ends.items()}
    refuse_existing(paths.values(), args.overwrite)
    image = read_images(args.images, args.bands, args.reference,
                        args.bad_bits)
    maps = attention_maps(image, backbone, size=args.size, at=at,
                          use_rollout=args.rollout)
    for k, head in enumerate(maps.segmentations(args.keep_mass)):
        print(f'head {k + 1}: {(head.data > 0).mean():.1%} of the pixels')
    _write(maps, args.keep_mass, paths, history(
        args.images, args.backbone or BUNDLED_BACKBONE, size=args.size,
        keep_mass=args.keep_mass, at=args.at, rollout=args.rollout))
    return 0


def _position(text):
    """A pixel given as ``x,y``."""
    try:
        x, y = (float(word) for word in text.split(','))
    except ValueError:
        msg = f'at: must be two numbers with a comma between, got {text!r}'
        raise ValueError(msg) from None
    return x, y


def _write(maps, keep_mass, paths, lines):
    from astrodino_seg.image import write_label_map, write_plane
    from astrodino_seg.plotting import plot_attention, rgb_image, save_figure

    image, upsampled = maps.image, maps.upsampled()
    combined = maps.combined(keep_mass)
    meta = {'HISTORY': lines}
    with all_or_none(paths) as parts:
        write_plane(parts['maps'], upsampled, image, meta=meta)
        write_label_map(parts['mean'], combined, image, meta=meta)
        for k, head in enumerate(maps.segmentations(keep_mass)):
            write_label_map(parts[k], head, image, meta=meta)
        if 'picture' in parts:
            figure = plot_attention(rgb_image(image), upsampled,
                                    maps.masks(keep_mass), combined)
            save_figure(figure, parts['picture'])
