# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Looks of one network, in overlapping tiles, at the image and its binned copies.

Shapes in comments: ``S`` seeds of a level, ``E`` length of the embedding.
"""

from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.inputs.channels import bin_channels
from astrodino_seg.models.backbone import side_by_side
from astrodino_seg.models.head import STRIDES
from astrodino_seg.models.instance import KEPT
from astrodino_seg.predict.tiles import (
    CONTEXT,
    FLIPS,
    STEP,
    TILE_SIZE,
    Maps,
    average_maps,
    average_seeds,
    blend,
    cells_of,
    tiles,
)
from astrodino_seg.truth import CLASSES

#: How far the convolutions of the head see, rounded up to a step, and the side
#: of the tiles that it runs on, pixels: twice as large ones take twice as long
#: a pixel, as their maps are no longer in the cache.
REACH = 96
MAP_TILE = 1216
#: Tiles that the transformer sees at once: four take two thirds of the time of
#: one by one, and eight more again.
AT_ONCE = 4
#: Cells of the head that pixels are read from at a time: they stay in the
#: cache.
IN_CACHE = 2**11
#: The image is binned further as long as it has so many pixels a side.
LEAST_SIDE = 24
#: Least probability of a seed.
MIN_HEAT = 0.1


class Level(NamedTuple):
    """
    What the network says of the image binned by ``factor``, in its pixels.
    """

    #: Pixels of the image, in x and in y.
    factor: int
    #: (C, y, x) float32, what the network has seen.
    channels: np.ndarray
    #: (y, x, E) float32.
    embedding: np.ndarray
    #: (y, x) float32 score of the rest: the sky, and what is larger.
    sky: np.ndarray
    #: (4, y, x) float32: of sky, star, galaxy and artifact; or `None`.
    logits: np.ndarray | None
    #: (y, x, 2) float32 offset (x, y) to the centre that each pixel votes for.
    vote: np.ndarray
    #: (S,) pixel positions and the probability that a seed is an object's
    #: centre.
    x: np.ndarray
    y: np.ndarray
    heat: np.ndarray
    #: (S, ...) see `~astrodino_seg.models.head.Seeds`.
    kernel: np.ndarray
    centre: np.ndarray
    matrix: np.ndarray
    falloff: np.ndarray
    descriptor: np.ndarray
    #: (S,) radius of the object in pixels.
    radius: np.ndarray
    #: (S, 3) probabilities of star, galaxy, artifact.
    classes: np.ndarray

    @property
    def probabilities(self):
        """(4, y, x) float32: sky, star, galaxy, artifact."""
        return _softmax(self.logits)


def find_peaks(heat, min_heat):
    """Local maxima of ``heat`` (H, W) over five pixels: x, y, heat (S,)."""
    rows, columns = (heat >= np.log(min_heat / (1 - min_heat))).nonzero(
        as_tuple=True)
    value, (ny, nx) = heat[rows, columns], heat.shape
    peak = torch.ones_like(value, dtype=torch.bool)
    steps = range(-2, 3)
    for y in [(rows + step).clamp(0, ny - 1) for step in steps]:
        for x in [(columns + step).clamp(0, nx - 1) for step in steps]:
            peak &= heat[y, x] <= value
    value, order = value[peak].sort(descending=True, stable=True)
    return (columns[peak][order].float(), rows[peak][order].float(),
            value.sigmoid())


def look(model, channels, **options):
    """Look at an image (C, y, x) at all levels, as `look_at_all`."""
    return look_at_all(model, [channels], **options)[0]


def look_at_all(model, images, *, bin_factor=1, min_heat=MIN_HEAT,
                device='cpu', classes=True, **options):
    """
    Look at images of one shape, all at once.

    Takes ``images``, each (C, y, x) float32, and options of `_maps_of_levels`;
    gives the levels of each, with or without ``classes`` of pixels.
    """
    wanted = [name for name in Maps._fields if classes or name != 'classes']
    levels = [[_read(model, i, seen, bin_factor * 2**k, k > 0, min_heat,
                     device, *maps) for i, seen in enumerate(some)]
              for k, (some, *maps) in enumerate(_maps_of_levels(
                  model, images, wanted, bin_factor=bin_factor, device=device,
                  **options))]
    return [list(of_image) for of_image in zip(*levels)]


def sky_at_all(model, images, **options):
    """The probability (image, y, x) of the sky at each level."""
    skies = []
    for some, maps, _ in _maps_of_levels(model, images, ['classes'],
                                         **options):
        ny, nx = some[0].shape[1:]
        skies.append(_softmax(maps.classes[:, :ny, :nx].permute(
            3, 0, 1, 2).numpy())[0])
    return skies


def _maps_of_levels(model, images, wanted, *, bin_factor=1, n_levels=None,
                    tile_size=TILE_SIZE, symmetric=False, device='cpu',
                    progress=False):
    """
    Yield, of each level, the planes of the images, (C, y, x) each, what is
    ``wanted`` of their padded `Maps`, and the pyramid of each flip.
    """
    for channels in images:
        if len(channels) != model.planes.n_planes:
            msg = (f'channels must be the {model.planes.n_planes} planes of '
                   f'the model, got {len(channels)}')
            raise ValueError(msg)
    n = model.head.in_channels      # then come planes of the transformer
    binned = [[bin_channels(one, bin_factor, n) for one in images]]
    while (min(binned[-1][0].shape[1:]) >= 2 * LEAST_SIDE
           and len(binned) != n_levels):
        binned.append([bin_channels(one, 2, n) for one in binned[-1]])
    batches = [[_pad(torch.from_numpy(one), n) for one in some]
               for some in binned]
    batches = [some[0][None] if len(some) == 1 else torch.stack(some)
               for some in batches]
    flips = FLIPS if symmetric else FLIPS[:1]
    seen = [(k > 0, x.flip(f) if f else x)
            for k, x in enumerate(batches) for f in flips]
    cuts = [tiles(tuple(x.shape[2:]), size=tile_size, margin=CONTEXT)
            for _, x in seen]
    with (tqdm(total=sum(map(len, cuts)), disable=not progress,
               desc='segmenting', unit='tile', leave=False) as bar,
          side_by_side(model, device) as submit):
        parts = [_submit_tiles(submit, model, x, cut, device)
                 for (_, x), cut in zip(seen, cuts)]
        maps = []
        for (is_binned, x), cut, part in zip(seen, cuts, parts):
            tokens = _tokens(x, cut, part, bar)
            part.clear()
            maps.append(_submit_maps(submit, model.head, x[:, :n], tokens,
                                     is_binned, device, wanted))
        del seen, batches, x
        for some in binned:
            here = [maps.pop(0) for _ in flips]
            for _, _, futures in here:
                for future in futures:
                    future.result()
            yield (some, average_maps([one for one, _, _ in here]),
                   [pyramid for _, pyramid, _ in here])


def _read(model, i, planes, factor, is_binned, min_heat, device, maps,
          pyramids):
    """A `Level` of image i, of its planes and of the maps of all."""
    ny, nx = planes.shape[1:]
    with torch.inference_mode():
        heat, rest, embedding, vote, classes = (
            None if one is None else one[i, :ny, :nx] for one in maps)
        sx, sy, value = find_peaks(heat, min_heat)
        seeds = average_seeds(model.head, [
            [one[i].to(device) for one in pyramid] for pyramid in pyramids],
            sx.to(device), sy.to(device))
        radius = seeds.radius
        # of a binned image what is smaller is called elsewhere
        keep = radius >= (KEPT[0] if is_binned else 0)
        parts = (sx, sy, value, seeds.kernel, seeds.centre, seeds.matrix,
                 seeds.falloff, seeds.descriptor, radius,
                 seeds.classes.softmax(dim=-1))
        return Level(factor, planes[:model.head.in_channels],
                     embedding.numpy(), rest.numpy(),
                     classes if classes is None
                     else classes.permute(2, 0, 1).numpy(),
                     vote.numpy(), *(part[keep].numpy() for part in parts))


def _softmax(logits):
    """
    Probabilities of logits (n, ...). In torch it takes much longer over the
    last axis, and over the first it depends on the threads.
    """
    out = logits - logits.max(axis=0)
    np.exp(out, out=out)
    out /= out.sum(axis=0)
    return out


def _pad(x, n_noise):
    """
    Whole steps; what lies outside is sky without valid bands.

    At least two: a convolution in bfloat16 of a map that is two pixels wide
    has read what is beside it in memory (oneDNN with AMX, torch 2.14).
    """
    ny, nx = (max(-(-side // STEP), 2) * STEP for side in x.shape[1:])
    edges = (0, nx - x.shape[2], 0, ny - x.shape[1])
    if not any(edges):
        return x
    out = F.pad(x, edges)
    if len(x) > n_noise:        # 0 is no sky in the planes of others
        out[n_noise:] = F.pad(x[n_noise:], edges, mode='replicate')
    return out


def _submit_tiles(submit, model, x, cuts, device):
    """Futures of the tokens of some tiles each, and which those are."""
    same = {}
    for k, tile in enumerate(cuts):
        same.setdefault(x[0, 0, *tile.outer].shape, []).append(k)
    some = [which[k:k + AT_ONCE] for which in same.values()
            for k in range(0, len(which), AT_ONCE)]

    def tokens(which):
        planes = torch.cat([x[..., *cuts[k].outer] for k in which])
        return model.tokens(planes.to(device)).cpu().split(len(x))

    return [(which, submit(tokens, which)) for which in some]


def _tokens(x, cuts, parts, bar):
    """Tokens of the images, averaged where tiles overlap."""
    def done():
        for which, future in parts:
            for k, part in zip(which, future.result()):
                yield cuts[k], part
                bar.update()

    return blend(done(), x.shape[2:], STEP)


def _submit_maps(submit, head, x, tokens, is_binned, device, wanted):
    """
    The `Maps` of images, their pyramid, and futures of the tiles that fill
    them.
    """
    binned = torch.tensor([int(is_binned)], device=device)
    shape, lock, pyramid = x.shape[2:], Lock(), []
    cuts = tiles(tuple(shape), size=MAP_TILE, margin=REACH)
    maps = Maps(**{name: _empty(name, head, len(x), shape)
                   if name in wanted else None for name in Maps._fields})

    def fill(tile):
        cells, levels = head.cells(
            x[..., *tile.outer].to(device),
            tokens[..., *cells_of(tile.outer)].to(device), binned)
        _read_cells(head, cells, tile, maps)
        if maps.heat is None:       # no seeds are read
            return
        if len(cuts) == 1:
            pyramid.extend(level.cpu() for level in levels)
            return
        with lock:
            if not pyramid:
                pyramid.extend(torch.empty(
                    *level.shape[:2], *(n // s for n in shape),
                    dtype=level.dtype, memory_format=torch.channels_last)
                    for s, level in zip(STRIDES, levels))
        for s, level, out in zip(STRIDES, levels, pyramid):
            out[..., *cells_of(tile.core, s)] = level[
                ..., *cells_of(tile.inner, s)].cpu()

    return maps, pyramid, [submit(fill, tile) for tile in cuts]


def _empty(name, head, n_images, shape):
    """Maps (image, y, x) or (image, y, x, n) that are yet to be filled."""
    if name == 'classes':       # each is looked at by itself
        return torch.empty(n_images, len(CLASSES), *shape).permute(0, 2, 3, 1)
    n = {'embedding': (head.n_embedding,), 'vote': (2,)}
    return torch.empty(n_images, *shape, *n.get(name, ()))


def _read_cells(head, cells, tile, maps):
    """Put what the cells of a tile say of its core in its place."""
    core, inner = (cells_of(part, 2) for part in (tile.core, tile.inner))
    views = [None if one is None else head.by_cells(one)[:, *core]
             for one in maps]
    cells = cells[:, *inner]
    n_rows, width = cells.shape[1:3]
    step = max(IN_CACHE // width, 1) if cells.device.type == 'cpu' else n_rows
    for k in range(0, n_rows, step):
        pixels = head.of_cells(cells[:, k:k + step]).unflatten(3, (2, 2))
        embedding, rest, classes, vote = head.split_pixels(pixels[..., 1:])
        for view, part in zip(views, (pixels[..., 0], rest, embedding, vote,
                                      classes)):
            if view is not None:
                view[:, k:k + step] = part
