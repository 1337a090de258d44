# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What commands share: what they read, what they run, and the files that they
write, all of them or none.
"""

import textwrap
from ast import literal_eval
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path

from astrodino_seg.files import (
    all_or_none,
    finish_set,
    locked,
    sha256_of,
)

#: What can be written beside, by the names on the command line.
MAPS = {'fragments': lambda result: result.fragments.data,
        'classes': lambda result: result.class_map,
        'probabilities': lambda result: result.probabilities,
        'background': lambda result: result.background,
        'noise': lambda result: result.noise}


def add_image_options(add, n_images='+', *, output=True):
    """The options of commands that read an image and write products."""
    if n_images:
        add('images', nargs=n_images, metavar='IMAGE',
            help='FITS file with all bands, or one file a band')
    if output:
        add('-o', '--output', metavar='PREFIX',
            help="prefix of the products, or a folder; default: the first "
                 "file's name, here")
    add('--bands', help='names of the bands, for example g,r,i or gri')
    add('--reference',
        help='band whose pixel grid the others are put on')
    add('--bad-bits', type=_bits,
        help='sum of the bits of a mask that mean invalid, or any; default: '
             'those of the pipeline that wrote the file')


def _bits(text):
    return text if text == 'any' else int(text)


def read_images(names, bands=None, reference=None, bad_bits=None, window=None,
                **planes):
    """
    The image of one cube, or of one file a band, or a window of it; ``planes``
    are those of `as_image`.
    """
    from astrodino_seg.image import as_image, cut_out

    source = names[0] if len(names) == 1 else names
    if window is not None:
        source = cut_out(source, window)
    return as_image(source, bands=split_bands(bands), reference=reference,
                    bad_bits=bad_bits, **planes)


def split_bands(text):
    """The names of bands: with commas between, or of a letter each."""
    return ([name.strip() for name in text.split(',')]
            if ',' in (text or '') else text)


def given(args, *names):
    """Those of the options that were given, by name."""
    return {name: value for name in names
            if (value := getattr(args, name)) not in (None, False)}


def refuse_options(args, names, why):
    """Raise if one of these options was given, which would do nothing."""
    for name in given(args, *names):
        msg = f'{name}: it is not used {why}'
        raise ValueError(msg)


def history(names, weights, **dials):
    """
    What products were made of and by, in lines that FITS headers hold: the
    version, the files ``names`` and that of the weights (`False` for none)
    with a hash each, and the dials.
    """
    from astrodino_seg import __version__
    from astrodino_seg.models.load import weights_file

    lines = [f'astrodino_seg {__version__}']
    files = [('input', name) for name in names]
    if weights is not False:
        files.insert(0, ('weights', weights_file(weights)))
    for kind, file in files:
        path = Path(str(file).split('[')[0] if not Path(file).exists()
                    else file)
        code = sha256_of(path) if path.is_file() else ''
        lines.append(f'{kind} {Path(file).name} sha256 {code[:16]}'
                     if code else f'{kind} {file}')
    lines.append(', '.join(f'{k}={v}' for k, v in dials.items()
                           if v is not None))
    return [part for line in lines if line for part in textwrap.wrap(
        line.encode('ascii', 'replace').decode(), 70)]


def all_finders(model=None):
    """The model and the baselines at hand, by name; and why others are not."""
    from astrodino_seg.evaluate.baselines import available_finders
    from astrodino_seg.segmenter import DinoSegmenter

    finders, missing = available_finders()
    return {'dino': DinoSegmenter(model=model), **finders}, missing


def choose_finders(names, model=None, **common):
    """
    The finders of some names with commas between. One may have options behind
    it, as ``photutils:contrast=0.1``, and is then ``photutils_contrast_0.1``;
    ``common`` are for all that have them, unless `None`.
    """
    finders, missing = all_finders(model)
    names = names.split(',') if names else finders
    chosen = {}
    for text in names:
        name, *words = text.strip().split(':')
        if name not in finders:
            why = missing.get(name, f'known are {", ".join(finders)}')
            msg = f'finders: no finder {name!r}: {why}'
            raise ValueError(msg)
        finder = copy(finders[name])
        for key, value in common.items():
            if value is not None and hasattr(finder, key):
                setattr(finder, key, value)
        for word in words:
            _set_option(finder, name, word)
        chosen['_'.join([name, *words]).replace('=', '_')] = finder
    return chosen


def _set_option(finder, name, word):
    """Set what a word like ``contrast=0.1`` says."""
    key, _, value = word.partition('=')
    if not value or key.startswith('_') or key not in vars(finder):
        known = ', '.join(key for key in vars(finder) if key[0] != '_')
        msg = f'finders: {name} has no option {word!r}; it has {known}'
        raise ValueError(msg)
    with suppress(ValueError, SyntaxError):     # of a word
        value = literal_eval(value)
    setattr(finder, key, value)


def as_prefix(output, image):
    """The path that the names of all products begin with."""
    name = Path(image.split('[')[0]).name
    for suffix in ('.fz', '.gz', '.bz2', '.fits', '.fit', '.fts', '.npy',
                   '.npz'):
        name = name.removesuffix(suffix)
    prefix = Path(output or '.')
    if prefix.is_dir():
        prefix = prefix / (name or 'segmented')
    if not prefix.parent.is_dir():
        msg = f'output: no folder {str(prefix.parent)!r}'
        raise ValueError(msg)
    return prefix


def product_paths(prefix, catalog_format, *, png, maps=False):
    """The paths of a segmentation's products."""
    suffix = {'votable': 'vot'}.get(catalog_format, catalog_format)
    ends = {'labels': '_segm.fits', 'catalog': f'_catalog.{suffix}',
            'regions': '.reg'}
    if png:
        ends['picture'] = '.png'
    if maps:
        ends['maps'] = '_maps.fits'
    return paths_of(prefix, ends)


def paths_of(prefix, ends):
    """Paths by kind, of what the prefix ends with."""
    return {kind: prefix.with_name(prefix.name + end)
            for kind, end in ends.items()}


def reserve(args, prefix, paths, *, overwrite):
    """
    Keep other runs from the prefix until the command ends; what exists is not
    replaced, unless told to, or a run was killed while it put it in place.
    """
    args.until_end.enter_context(locked(prefix))
    may_go = finish_set(prefix)
    existing = [str(path) for path in paths.values()
                if path.exists() and path not in may_go]
    if existing and not overwrite:
        msg = f'{", ".join(existing)} exists; give --overwrite to replace it'
        raise OSError(msg)


@contextmanager
def written(prefix, paths):
    """As `all_or_none`, and tells what was written."""
    with all_or_none(prefix, paths) as parts:
        yield parts
    for path in paths.values():
        print(f'wrote {path}')


def write_products(result, prefix, paths, other=None, *, maps=(), lines=(),
                   columns='own'):
    """
    Write all products, or none; ``other`` labels are drawn beside, ``maps``
    are names in `MAPS`, ``lines`` of `history`, ``columns`` says whose names
    are used.
    """
    from astrodino_seg.edits import describe
    from astrodino_seg.formats import (
        lsst_table,
        sextractor_table,
        to_regions,
        to_votable,
    )
    from astrodino_seg.image import write_label_map, write_maps
    from astrodino_seg.plotting import (
        plot_segmentations,
        rgb_image,
        save_figure,
    )

    labels = result.segmentation_image.data
    if result.edits is not None:
        lines = [*lines, *(part for line in describe(result.edits)
                           for part in textwrap.wrap(f'edit {line}', 70))]
    meta = {'HISTORY': list(lines)}
    table = {'own': lambda result: result.table.copy(), 'lsst': lsst_table,
             'sextractor': sextractor_table}[columns](result)
    table.meta.update(meta if lines else {})
    with written(prefix, paths) as parts:
        write_label_map(parts['labels'], labels, result.image, meta=meta)
        if paths['catalog'].suffix == '.vot':
            to_votable(table).to_xml(str(parts['catalog']))
        else:
            table.write(parts['catalog'])
        to_regions(result).write(parts['regions'], format='ds9')
        with parts['regions'].open('a') as stream:
            stream.writelines(f'# {line}\n' for line in lines)
        if maps:
            write_maps(parts['maps'], {
                name.upper(): MAPS[name](result) for name in maps},
                result.image, meta=meta)
        if 'picture' in parts:
            rgb = rgb_image(result.image, result.background, result.noise)
            both = {'DinoSegmenter': labels, **(other or {})}
            save_figure(plot_segmentations(rgb, both), parts['picture'])


def summarise(result):
    """What was found, in one line."""
    names, counts = [], result.table['class'].tolist()
    for name in result.class_names[1:]:
        names.append(f'{counts.count(name)} {name}')
    return f'{len(result.table)} objects: {", ".join(names)}'
