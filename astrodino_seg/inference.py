# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Run a model over an image: dense maps tile by tile.

The maps of all tiles are joined before anything is decided, so labels need
no stitching.
"""

import torch
from torch.nn import functional as F
from tqdm import tqdm

from astrodino_seg.binning import bin_channels, oversampling, unbin_prediction
from astrodino_seg.heads import STRIDES, DenseMaps
from astrodino_seg.prediction import WEAK_HEAT, read_prediction, seeds_of
from astrodino_seg.tiling import taper, tiles

__all__ = ['has_bfloat16', 'predict', 'predict_maps']

STEP = max(STRIDES)
#: Half the overlap of tiles for the tokens, pixels.
CONTEXT = 48
#: How far the convolutions of `GroupingHead` see, rounded up to a step.
REACH = 96
#: Side of the tiles that the head runs on, pixels: there is no need of several
#: until memory is.
MAP_TILE = 2624


def predict(model, channels, *, min_heat=WEAK_HEAT, bin_factor=None,
            tile_size=512, device='cpu', progress=False):
    """
    Dense maps, seeds and pair probabilities of an image.

    An oversampled image, whose PSF spans more pixels than the model has
    seen, is binned for the network and the maps are interpolated back.

    Parameters
    ----------
    model : `~astrodino_seg.model.Model`
        The model, on ``device``.
    channels : `~numpy.ndarray`
        (C, y, x) float32 of the model's ``planes``.
    min_heat : float, optional
        Seeds below this probability are dropped.
    bin_factor : int, optional
        Pixels to bin in x and in y; `None` chooses by
        `~astrodino_seg.binning.oversampling`.
    tile_size : int, optional
        Largest side of the tiles in (binned) pixels, a multiple of 16.
    device : str, optional
        Where the network runs.
    progress : bool, optional
        Whether to show a progress bar over the tiles.

    Returns
    -------
    prediction : `~astrodino_seg.prediction.Prediction`
        All that grouping needs.
    """
    shape = channels.shape[1:]
    n = model.head.in_channels
    factor = oversampling(channels[:n]) if bin_factor is None else bin_factor
    channels = bin_channels(channels, factor, n)
    with torch.inference_mode():
        maps = predict_maps(model, channels, tile_size=tile_size,
                            device=device, progress=progress)
        x, y, heat = seeds_of(maps, min_heat)
        prediction = read_prediction(model, maps, channels, x, y, heat)
        return unbin_prediction(prediction, factor, shape)


def predict_maps(model, channels, *, tile_size=512, device='cpu',
                 progress=False):
    """
    Dense maps of an image of any size, on the CPU.

    The tokens come first, averaged where tiles overlap, because each depends
    on all of its tile. Then the head runs on tiles whose margins hold all
    that its convolutions see, so that tiles leave no trace.

    Parameters are those of `predict`; the maps have no batch axis and the
    sides of the image.
    """
    if len(channels) != model.planes.n_planes:
        msg = (f'channels must be the {model.planes.n_planes} planes of the '
               f'model, got {len(channels)}')
        raise ValueError(msg)
    _, ny, nx = channels.shape
    x = _pad(torch.from_numpy(channels), model.head.in_channels)
    shape = tuple(x.shape[1:])
    for_tokens = tiles(shape, size=tile_size, margin=CONTEXT)
    for_maps = tiles(shape, size=MAP_TILE, margin=REACH)
    bar = tqdm(total=len(for_tokens) + len(for_maps), disable=not progress,
               desc='segmenting', unit='tile', leave=False)

    def batch(array, tile, step=1):
        ys, xs = (slice(c.start // step, c.stop // step) for c in tile.outer)
        return array[None, :, ys, xs].to(device).contiguous(
            memory_format=torch.channels_last)

    def run(function, *inputs):
        with torch.autocast(torch.device(device).type, torch.bfloat16,
                            enabled=model.in_bfloat16):
            return function(*inputs)

    tokens, weights = None, torch.zeros(shape[0] // STEP, shape[1] // STEP)
    for tile in for_tokens:
        part = run(model.tokens, batch(x, tile))[0].cpu()
        weight = torch.from_numpy(taper(tile, shape, step=STEP))
        if tokens is None:
            tokens = torch.zeros(len(part), *weights.shape)
        ys, xs = (slice(c.start // STEP, c.stop // STEP) for c in tile.outer)
        tokens[:, ys, xs] += weight * part
        weights[ys, xs] += weight
        bar.update()
    tokens /= weights

    full = None
    for tile in for_maps:
        maps = _flat(run(model.head, batch(x, tile),
                         batch(tokens, tile, STEP)))
        bar.update()
        if len(for_maps) == 1:
            full = [m[0].permute(1, 2, 0) for _, m in maps]
            break
        if full is None:
            full = [torch.empty(shape[0] // s, shape[1] // s, m.shape[1],
                                dtype=m.dtype) for s, m in maps]
        for (s, m), out in zip(maps, full):
            core, inner = ([slice(c.start // s, c.stop // s) for c in cut]
                           for cut in (tile.core, tile.inner))
            out[tuple(core)] = m[0][:, inner[0], inner[1]].permute(1, 2, 0)
    bar.close()
    heat, *dense = (m.permute(2, 0, 1).cpu() for m in full)
    dense, pyramid = dense[:4], dense[4:]
    return DenseMaps(heat, *(m[:, :ny, :nx] for m in dense), tuple(pyramid))


def _pad(x, n_noise):
    """Whole steps; what lies outside is sky without valid bands."""
    edges = (0, -x.shape[2] % STEP, 0, -x.shape[1] % STEP)
    out = F.pad(x, edges)
    if len(x) > n_noise:        # 0 is no sky in the planes of others
        out[n_noise:] = F.pad(x[n_noise:], edges, mode='replicate')
    return out


def _flat(maps):
    """(stride, map) of all maps in order."""
    return [(2, maps.heat), (1, maps.embedding), (1, maps.sky),
            (1, maps.classes), (1, maps.vote), *zip(STRIDES, maps.pyramid)]


def has_bfloat16(device):
    """
    Whether a network runs in bfloat16 unless it is told otherwise.

    Parameters
    ----------
    device : str
        Where it runs.

    Returns
    -------
    has_bfloat16 : bool
        Whether it is a CPU with instructions for bfloat16, and so twice as
        fast.
    """
    test = getattr(torch.cpu, '_is_avx512_bf16_supported', bool)
    return torch.device(device).type == 'cpu' and test()
