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
from astrodino_seg.tiling import strips, taper, tiles

__all__ = ['has_bfloat16', 'predict', 'predict_maps']

STEP = max(STRIDES)
#: Half the overlap of tiles for the tokens, pixels.
CONTEXT = 48
#: How far the convolutions of `GroupingHead` see, rounded up to a step.
REACH = 96
#: Side of the tiles that the head runs on, pixels: there is no need of several
#: until memory is.
MAP_TILE = 2624
#: Rows that its layers at full resolution run on, on a CPU: what they make
#: stays in the cache, and memory is not asked for again.
STRIP = 64
#: How far these layers see, and with them the first at half the resolution.
STRIP_MARGIN = 2


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
    with (tqdm(total=len(for_tokens) + len(for_maps), disable=not progress,
               desc='segmenting', unit='tile', leave=False) as bar,
          torch.autocast(torch.device(device).type, torch.bfloat16,
                         enabled=model.in_bfloat16)):
        tokens = _tokens(model, x, for_tokens, device, bar)
        full = _head_maps(model, x, tokens, for_maps, device, bar)
    heat, *dense = (m.permute(2, 0, 1) for m in full)
    dense, pyramid = dense[:4], dense[4:]
    return DenseMaps(heat, *(m[:, :ny, :nx] for m in dense), tuple(pyramid))


def _cut(array, window, device):
    """A window (y, x) of an array, as a batch on the device."""
    return array[None, :, *window].to(device).contiguous(
        memory_format=torch.channels_last)


def _coarser(slices, step):
    """Slices of pixels as slices of cells of so many pixels."""
    return tuple(slice(c.start // step, c.stop // step) for c in slices)


def _tokens(model, x, cuts, device, bar):
    """Tokens of the image, averaged where tiles overlap."""
    shape = x.shape[1] // STEP, x.shape[2] // STEP
    tokens, weights = None, torch.zeros(shape)
    for tile in cuts:
        part = model.tokens(_cut(x, tile.outer, device))[0].cpu()
        weight = torch.from_numpy(taper(tile, x.shape[1:], step=STEP))
        if tokens is None:
            tokens = torch.zeros(len(part), *shape)
        cells = _coarser(tile.outer, STEP)
        tokens[:, *cells] += weight * part
        weights[cells] += weight
        bar.update()
    return tokens / weights


def _head_maps(model, x, tokens, cuts, device, bar):
    """All maps of the head, (h, w, C) each, on the CPU."""
    full, steps = None, (2, 1, 1, 1, 1, *STRIDES)
    for tile in cuts:
        maps = _tile_maps(
            model.head, x[:model.head.in_channels, *tile.outer],
            _cut(tokens, _coarser(tile.outer, STEP), device), device)
        bar.update()
        if len(cuts) == 1:
            return maps
        if full is None:
            full = [torch.empty(x.shape[1] // s, x.shape[2] // s, m.shape[2],
                                dtype=m.dtype) for s, m in zip(steps, maps)]
        for s, m, out in zip(steps, maps, full):
            out[_coarser(tile.core, s)] = m[_coarser(tile.inner, s)]
    return full


def _tile_maps(head, x, tokens, device):
    """
    All maps of one tile, (h, w, C) each, on the CPU.

    What has the full resolution is made strip by strip, the first of it
    twice rather than kept.
    """
    _, ny, nx = x.shape
    on_cpu = torch.device(device).type == 'cpu'
    cuts = strips(ny, size=STRIP if on_cpu else ny, margin=STRIP_MARGIN)
    half, full = None, None
    for cut in cuts:
        part = head.detail.to_half(head.detail.stem(
            _cut(x, (cut[0], slice(None)), device)))
        if half is None:
            half = torch.empty((1, part.shape[1], ny // 2, nx // 2),
                               dtype=part.dtype, device=part.device,
                               memory_format=torch.channels_last)
        _, core, inner = _coarser(cut, 2)
        half[:, :, core] = part[:, :, inner]
    heat, pyramid = head.coarse(half, tokens)
    del half
    for outer, core, inner in cuts:
        maps = [m[0].permute(1, 2, 0) for m in head.fine(
            pyramid[0][:, :, outer.start // 2:outer.stop // 2],
            head.detail.stem(_cut(x, (outer, slice(None)), device)))]
        if full is None:
            full = [torch.empty(ny, nx, m.shape[2], dtype=m.dtype)
                    for m in maps]
        for m, out in zip(maps, full):
            out[core] = m[inner]
    heat, *pyramid = (m[0].permute(1, 2, 0).cpu() for m in (heat, *pyramid))
    return [heat, *full, *pyramid]


def _pad(x, n_noise):
    """Whole steps; what lies outside is sky without valid bands."""
    edges = (0, -x.shape[2] % STEP, 0, -x.shape[1] % STEP)
    out = F.pad(x, edges)
    if len(x) > n_noise:        # 0 is no sky in the planes of others
        out[n_noise:] = F.pad(x[n_noise:], edges, mode='replicate')
    return out


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
