# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Looks of one network, in overlapping tiles, at the image and its binned copies.

Shapes in comments: ``S`` seeds of a level, ``E`` length of the embedding.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.inputs.channels import bin_channels
from astrodino_seg.models.backbone import side_by_side
from astrodino_seg.models.head import STRIDES
from astrodino_seg.models.instance import KEPT
from astrodino_seg.predict.flips import FLIPS, average_maps, average_seeds

STEP = max(STRIDES)
#: Half the overlap of the tiles that a transformer runs on, pixels.
CONTEXT = 48
#: Side of the tiles: that of the crops of training, since a transformer that
#: sees more than it ever has finds less.
TILE_SIZE = 256
#: How far the convolutions of the head see, rounded up to a step, and the side
#: of the tiles that it runs on, pixels: twice as large ones take twice as long
#: a pixel, as their maps are no longer in the cache.
REACH = 96
MAP_TILE = 1216
#: Tiles that the transformer sees at once: four take two thirds of the time of
#: one by one, and eight more again.
AT_ONCE = 4
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
    #: (4, y, x) float32: sky, star, galaxy, artifact.
    probabilities: np.ndarray
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


class Tile(NamedTuple):
    """One tile, as slices (y, x)."""

    #: What is read, in the image.
    outer: tuple
    #: What is kept, in the image; the cores cover it once.
    core: tuple
    #: The core, in the tile.
    inner: tuple


def _cuts(n, size, margin, step):
    """(start, stop, core start, core stop) along one axis, evenly spread."""
    n_tiles = 1 if n <= size else -(-n // (size - 2 * margin))
    length = -(-n // n_tiles // step) * step
    starts = range(0, n, length)
    return [(max(start - margin, 0), min(start + length + margin, n),
             start, min(start + length, n)) for start in starts]


def tiles(shape, *, size=TILE_SIZE, margin=CONTEXT, step=16):
    """Cut an image into overlapping tiles whose cores cover it once."""
    if size < 2 * margin + step or size % step or margin % step:
        msg = (f'size and margin must be multiples of {step}, and size at '
               f'least 2 * margin + {step} = {2 * margin + step}, got '
               f'size={size!r}, margin={margin!r}')
        raise ValueError(msg)
    out = []
    for ys in _cuts(shape[0], size, margin, step):
        for xs in _cuts(shape[1], size, margin, step):
            out.append(Tile(
                tuple(slice(c[0], c[1]) for c in (ys, xs)),
                tuple(slice(c[2], c[3]) for c in (ys, xs)),
                tuple(slice(c[2] - c[0], c[3] - c[0]) for c in (ys, xs))))
    return out


def taper(tile, shape, *, step=16):
    """
    Weight (rows, columns) float32 of each cell of a tile in the average with
    its neighbours.

    The weight falls linearly to the tile's edge over twice its margin, but not
    at the image's own edge, so that maps which depend on the whole tile pass
    smoothly from one to the next.
    """
    axes = []
    for outer, core, n in zip(tile.outer, tile.core, shape):
        n_cells = (outer.stop - outer.start) // step
        cell = np.arange(n_cells) + 0.5
        weight = np.ones(n_cells)
        if outer.start > 0:
            ramp = 2 * (core.start - outer.start) // step
            weight = np.minimum(weight, cell / max(ramp, 1))
        if outer.stop < n:
            ramp = 2 * (outer.stop - core.stop) // step
            weight = np.minimum(weight, (n_cells - cell) / max(ramp, 1))
        axes.append(weight)
    return np.outer(*axes).astype(np.float32)


def blend(parts, shape, step):
    """
    Maps (..., rows, columns) of cells of ``step`` pixels, of an image of a
    shape, from pairs of a tile and its map, averaged where tiles overlap.
    """
    cells = [n // step for n in shape]
    total, weights = 0, torch.zeros(cells)
    for tile, part in parts:
        if isinstance(total, int):
            total = torch.zeros(*part.shape[:-2], *cells)
        weight = torch.from_numpy(taper(tile, shape, step=step))
        where = _cells(tile.outer, step)
        total[..., *where] += weight * part
        weights[where] += weight
    return total / weights


def _cells(slices, step=STEP):
    """Slices of pixels as slices of cells."""
    return tuple(slice(c.start // step, c.stop // step) for c in slices)


def find_peaks(heat, min_heat):
    """Local maxima of ``heat`` (H, W) over five pixels: x, y, heat (S,)."""
    limit = np.log(min_heat / (1 - min_heat))
    rows = F.max_pool2d(heat[None, None], (1, 5), 1, (0, 2))
    peak = (heat == F.max_pool2d(rows, (5, 1), 1, (2, 0))[0, 0]) & (
        heat >= limit)
    rows, columns = peak.nonzero(as_tuple=True)
    value, order = heat[rows, columns].sort(descending=True, stable=True)
    return columns[order].float(), rows[order].float(), value.sigmoid()


def look(model, channels, **options):
    """Look at an image (C, y, x) at all levels, as `look_at_all`."""
    return look_at_all(model, [channels], **options)[0]


def look_at_all(model, images, *, bin_factor=1, min_heat=MIN_HEAT,
                device='cpu', **options):
    """
    Look at images of one shape, all at once.

    Takes ``images``, each (C, y, x) float32, and options of `_maps_of_levels`;
    gives the levels of each.
    """
    levels = [[_read(model, i, x, shape, bin_factor * 2**k, k > 0, min_heat,
                     device, *maps) for i in range(len(images))]
              for k, (x, shape, *maps) in enumerate(_maps_of_levels(
                  model, images, bin_factor=bin_factor, device=device,
                  **options))]
    return [list(of_image) for of_image in zip(*levels)]


def sky_at_all(model, images, **options):
    """The probability (image, y, x) of the sky at each level."""
    skies = []
    for _, (ny, nx), _, pixels, _ in _maps_of_levels(model, images, **options):
        classes = model.head.split_pixels(pixels[:, :ny, :nx])[2]
        skies.append(_softmax(classes.permute(3, 0, 1, 2).contiguous()
                              .numpy())[0])
    return skies


def _maps_of_levels(model, images, *, bin_factor=1, n_levels=None,
                    tile_size=TILE_SIZE, symmetric=False, device='cpu',
                    progress=False):
    """
    Yield, of each level, the planes (image, C, y, x), which are padded, the
    shape that they had, and what `average_maps` gives.
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
    shapes = [some[0].shape[1:] for some in binned]
    batches = [torch.stack([_pad(torch.from_numpy(one), n) for one in some])
               for some in binned]
    flips = FLIPS if symmetric else FLIPS[:1]
    seen = [(k > 0, x.flip(f)) for k, x in enumerate(batches) for f in flips]
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
            maps.append(_submit_maps(submit, model.head, x[:, :n], tokens,
                                     is_binned, device))
        for x, shape in zip(batches, shapes):
            yield x, shape, *average_maps([_maps(x, *maps.pop(0))
                                           for _ in flips])


def _read(model, i, x, shape, factor, is_binned, min_heat, device, heat,
          pixels, pyramids):
    """A `Level` of image i, of the maps of planes padded from a shape."""
    n, (ny, nx) = model.head.in_channels, shape
    with torch.inference_mode():
        heat, pixels = heat[i, :ny, :nx], pixels[i, :ny, :nx]
        sx, sy, value = find_peaks(heat, min_heat)
        seeds = average_seeds(model.head, [
            [one[i].to(device) for one in pyramid] for pyramid in pyramids],
            sx.to(device), sy.to(device))
        radius = seeds.radius
        embedding, rest, classes, vote = model.head.split_pixels(pixels)
        # of a binned image what is smaller is called elsewhere
        keep = radius >= (KEPT[0] if is_binned else 0)
        parts = (sx, sy, value, seeds.kernel, seeds.centre, seeds.matrix,
                 seeds.falloff, seeds.descriptor, radius,
                 seeds.classes.softmax(dim=-1))
        return Level(factor, x[i, :n, :ny, :nx].numpy(),
                     embedding.contiguous().numpy(), rest.contiguous().numpy(),
                     _softmax(classes.permute(2, 0, 1).contiguous().numpy()),
                     vote.contiguous().numpy(),
                     *(part[keep].numpy() for part in parts))


def _softmax(logits):
    """
    Probabilities of logits (n, ...), in place. In torch it takes much
    longer over the last axis, and over the first it depends on the threads.
    """
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def _pad(x, n_noise):
    """
    Whole steps; what lies outside is sky without valid bands.

    At least two: a convolution in bfloat16 of a map that is two pixels wide
    has read what is beside it in memory (oneDNN with AMX, torch 2.14).
    """
    ny, nx = (max(-(-side // STEP), 2) * STEP for side in x.shape[1:])
    edges = (0, nx - x.shape[2], 0, ny - x.shape[1])
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


def _submit_maps(submit, head, x, tokens, is_binned, device):
    """Tiles of the head, and the future of the maps of each."""
    binned = torch.tensor([int(is_binned)], device=device)
    cuts = tiles(tuple(x.shape[2:]), size=MAP_TILE, margin=REACH)

    def maps(tile):
        out = head(x[..., *tile.outer].to(device),
                   tokens[..., *_cells(tile.outer)].to(device), binned)
        return (out.heat.cpu(), out.pixels.cpu(),
                [level.cpu() for level in out.pyramid])

    return cuts, [submit(maps, tile) for tile in cuts]


def _maps(x, cuts, parts):
    """Heat, pixels and pyramid of the images, on the CPU."""
    if len(cuts) == 1:
        return parts[0].result()
    shape = x.shape[2:]
    heat = torch.empty(len(x), *shape)
    pixels = pyramid = None
    while parts:                    # what is in place is not kept
        tile = cuts[-len(parts)]
        one = parts.pop(0).result()
        if pixels is None:
            pixels = torch.empty(*heat.shape, one[1].shape[-1])
            pyramid = [torch.empty(*level.shape[:2], shape[0] // s,
                                   shape[1] // s, dtype=level.dtype)
                       for s, level in zip(STRIDES, one[2])]
        heat[:, *tile.core] = one[0][:, *tile.inner]
        pixels[:, *tile.core] = one[1][:, *tile.inner]
        for s, level, out in zip(STRIDES, one[2], pyramid):
            out[..., *_cells(tile.core, s)] = level[
                ..., *_cells(tile.inner, s)]
    return heat, pixels, pyramid
