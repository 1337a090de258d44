# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Looks of one network at the image and its binned copies.

Shapes in comments: ``S`` seeds of a level, ``E`` length of the embedding.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.inputs.binning import bin_channels
from astrodino_seg.models.head import STRIDES
from astrodino_seg.models.instance import KEPT
from astrodino_seg.predict.tiles import CONTEXT, TILE_SIZE, taper, tiles

STEP = max(STRIDES)
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


def find_peaks(heat, min_heat):
    """
    Local maxima of the heatmap, over five pixels.

    ``heat`` (H, W) -> ``x, y, heat`` (S,).
    """
    limit = np.log(min_heat / (1 - min_heat))
    rows = F.max_pool2d(heat[None, None], (1, 5), 1, (0, 2))
    peak = (heat == F.max_pool2d(rows, (5, 1), 1, (2, 0))[0, 0]) & (
        heat >= limit)
    rows, columns = peak.nonzero(as_tuple=True)
    value, order = heat[rows, columns].sort(descending=True, stable=True)
    return columns[order].float(), rows[order].float(), value.sigmoid()


def look(model, channels, *, bin_factor=1, n_levels=None, min_heat=MIN_HEAT,
         tile_size=TILE_SIZE, device='cpu', progress=False):
    """
    Look at an image at all levels.

    Takes ``channels`` (C, y, x) float32.
    """
    if len(channels) != model.planes.n_planes:
        msg = (f'channels must be the {model.planes.n_planes} planes of the '
               f'model, got {len(channels)}')
        raise ValueError(msg)
    n = model.head.in_channels      # then come planes of the transformer
    images = [bin_channels(channels, bin_factor, n)]
    while (min(images[-1].shape[1:]) >= 2 * LEAST_SIDE
           and len(images) != n_levels):
        images.append(bin_channels(images[-1], 2, n))
    shapes = [one.shape[1:] for one in images]
    images = [_pad(torch.from_numpy(one), n) for one in images]
    cuts = [tiles(tuple(one.shape[1:]), size=tile_size, margin=CONTEXT)
            for one in images]
    with (tqdm(total=sum(map(len, cuts)), disable=not progress,
               desc='segmenting', unit='tile', leave=False) as bar,
          _side_by_side(model, device) as submit):
        parts = [_submit_tiles(submit, model, x, cut, device)
                 for x, cut in zip(images, cuts)]
        maps = []
        for k, (x, cut, part) in enumerate(zip(images, cuts, parts)):
            tokens = _tokens(x, cut, part, bar)
            maps.append(_submit_maps(submit, model.head, x[:n], tokens, k > 0,
                                     device))
        return [_read(model, x, shape, bin_factor * 2**k, k > 0, min_heat,
                      device, *_maps(x, *part))
                for k, (x, shape, part) in enumerate(
                    zip(images, shapes, maps))]


@contextmanager
def _side_by_side(model, device):
    """
    What runs the network in threads of one core each.

    Many cores for each of its many short steps would wait for one another,
    and for whatever else the machine does.
    """
    kind, n_threads = torch.device(device).type, torch.get_num_threads()

    def run(function, *args):
        with torch.inference_mode(), torch.autocast(
                kind, torch.bfloat16, enabled=model.in_bfloat16):
            return function(*args)

    try:
        with ThreadPoolExecutor(n_threads if kind == 'cpu' else 1,
                                initializer=torch.set_num_threads,
                                initargs=(1,)) as pool:
            yield lambda function, *args: pool.submit(run, function, *args)
    finally:                    # of threads that are yet to come
        torch.set_num_threads(n_threads)


def _read(model, x, shape, factor, is_binned, min_heat, device, heat, pixels,
          pyramid):
    """A `Level`, of the maps of planes that were padded from a shape."""
    n, (ny, nx) = model.head.in_channels, shape
    with torch.inference_mode():
        heat, pixels = heat[:ny, :nx], pixels[:ny, :nx]
        sx, sy, value = find_peaks(heat, min_heat)
        seeds = model.head.read_seeds([one.to(device) for one in pyramid],
                                      sx.to(device), sy.to(device))
        seeds = type(seeds)(*(part.cpu() for part in seeds))
        radius = seeds.radius
        embedding, rest, classes, vote = model.head.split_pixels(pixels)
        keep = slice(None)
        if is_binned:                   # what is smaller is called elsewhere
            keep = radius >= KEPT[0]
        parts = (sx, sy, value, seeds.kernel, seeds.centre, seeds.matrix,
                 seeds.falloff, seeds.descriptor, radius,
                 seeds.classes.softmax(dim=-1))
        return Level(factor, x[:n, :ny, :nx].numpy(),
                     embedding.contiguous().numpy(), rest.contiguous().numpy(),
                     classes.softmax(dim=-1).permute(2, 0, 1).numpy(),
                     vote.contiguous().numpy(),
                     *(part[keep].numpy() for part in parts))


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


def _cells(slices):
    """Slices of pixels as slices of patches."""
    return tuple(slice(c.start // STEP, c.stop // STEP) for c in slices)


def _submit_tiles(submit, model, x, cuts, device):
    """Futures of the tokens of some tiles each, and which those are."""
    same = {}
    for k, tile in enumerate(cuts):
        same.setdefault(x[0, *tile.outer].shape, []).append(k)
    some = [which[k:k + AT_ONCE] for which in same.values()
            for k in range(0, len(which), AT_ONCE)]

    def tokens(which):
        planes = torch.stack([x[:, *cuts[k].outer] for k in which])
        return model.tokens(planes.to(device)).cpu()

    return [(which, submit(tokens, which)) for which in some]


def _tokens(x, cuts, parts, bar):
    """Tokens of the image, averaged where tiles overlap."""
    shape = x.shape[1] // STEP, x.shape[2] // STEP
    tokens, weights = 0, torch.zeros(shape)
    for which, future in parts:
        for k, part in zip(which, future.result()):
            weight = torch.from_numpy(taper(cuts[k], x.shape[1:], step=STEP))
            if isinstance(tokens, int):
                tokens = torch.zeros(len(part), *shape)
            cells = _cells(cuts[k].outer)
            tokens[:, *cells] += weight * part
            weights[cells] += weight
            bar.update()
    return tokens / weights


def _submit_maps(submit, head, x, tokens, is_binned, device):
    """Tiles of the head, and the future of the maps of each."""
    binned = torch.tensor([int(is_binned)], device=device)
    cuts = tiles(tuple(x.shape[1:]), size=MAP_TILE, margin=REACH)

    def maps(tile):
        out = head(x[None, :, *tile.outer].to(device),
                   tokens[None, :, *_cells(tile.outer)].to(device), binned)
        return (out.heat[0].cpu(), out.pixels[0].cpu(),
                [level[0].cpu() for level in out.pyramid])

    return cuts, [submit(maps, tile) for tile in cuts]


def _maps(x, cuts, parts):
    """Heat, pixels and pyramid of an image, on the CPU."""
    if len(cuts) == 1:
        return parts[0].result()
    heat = torch.empty(x.shape[1:])
    pixels = pyramid = None
    while parts:                    # what is in place is not kept
        tile = cuts[-len(parts)]
        one = parts.pop(0).result()
        if pixels is None:
            pixels = torch.empty(*x.shape[1:], one[1].shape[-1])
            pyramid = [torch.empty(level.shape[0], x.shape[1] // s,
                                   x.shape[2] // s, dtype=level.dtype)
                       for s, level in zip(STRIDES, one[2])]
        heat[tile.core] = one[0][tile.inner]
        pixels[tile.core] = one[1][tile.inner]
        for s, level, out in zip(STRIDES, one[2], pyramid):
            core, inner = (tuple(slice(c.start // s, c.stop // s)
                                 for c in part)
                           for part in (tile.core, tile.inner))
            out[:, *core] = level[:, *inner]
    return heat, pixels, pyramid


def has_bfloat16(device):
    """Whether a network runs in bfloat16 unless it is told otherwise."""
    test = getattr(torch.cpu, '_is_avx512_bf16_supported', bool)
    return torch.device(device).type == 'cpu' and test()
