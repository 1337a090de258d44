# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
From image channels and ViT tokens to dense maps, seeds and masks of one level.
The head fuses the patch tokens with a light convolution stream (as ViTMatte
does; Yao et al. 2024, Information Fusion 103, 102091) and predicts
centre-seeded soft masks: a centre heatmap (CenterNet; Zhou et al. 2019,
arXiv:1904.07850), a pixel embedding, and at each seed a kernel (CondInst; Tian
et al. 2020, arXiv:2003.05664) whose score against the embedding, less an
elliptical distance of the position that a pixel votes for (Neven et al. 2019,
arXiv:1906.11109), competes with the rest and the other seeds. The convolutions
begin at a stride of 2, on the four pixels of each cell, and what has the full
resolution is read from the cells' four parts (Shi et al. 2016,
arXiv:1609.05158). Shapes in comments: ``B`` batch, ``H``, ``W`` image, ``S``
seeds, ``E`` embedding.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from astrodino_seg.truth import CLASSES

STRIDES = (2, 4, 8, 16)     # of the maps that seeds are read from
VOTE_SCALE = 16.0           # pixels
LOG_SIZES = -1, 6           # of radii in pixels, the least and the most


def conv_block(n_in, n_out, *, kernel_size=3, stride=1):
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2,
                  bias=False),
        nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))


def sample(level, x, y):
    """
    Bilinear values, (S, C) float32, of a map (C, h, w) at (S,) positions in
    its cells; beyond its border they are those of the border.
    """
    low = [torch.floor(p) for p in (y, x)]
    part = [p - a for p, a in zip((y, x), low)]
    weights, rows, columns = [], [], []
    for dy in (0, 1):
        for dx in (0, 1):
            row, column = ((a + d).long().clamp(0, n - 1) for a, d, n in zip(
                low, (dy, dx), level.shape[1:]))
            weights.append((part[0] if dy else 1 - part[0])
                           * (part[1] if dx else 1 - part[1]))
            rows.append(row)
            columns.append(column)
    # all corners at once: each reading has a gradient as large as the map
    corners = level.permute(1, 2, 0)[torch.stack(rows), torch.stack(columns)]
    return (torch.stack(weights)[..., None] * corners.float()).sum(dim=0)


class InstanceMaps(NamedTuple):
    """What the network says of every pixel of one level."""

    #: (B, H, W) logit that the centre of an object of this level lies here.
    heat: torch.Tensor
    #: (B, H, W, E + 7): the embedding, the score of the rest (the sky and what
    #: is larger), the logits of sky, star, galaxy and artifact, and the vote
    #: (x, y) in units of `VOTE_SCALE`. `None` unless they are asked for.
    pixels: torch.Tensor | None
    #: Features at strides 2, 4, 8, 16 that seeds are read from.
    pyramid: tuple
    #: (B, H/2, W/2, M) what `InstanceHead.read_pixels` makes pixels of, where
    #: they are `None`.
    cells: torch.Tensor | None = None


class Seeds(NamedTuple):
    """What the network says of each seed."""

    #: (S, E + 1) kernel and bias against the embedding.
    kernel: torch.Tensor
    #: (S, 2) centre (x, y) of the object in pixels.
    centre: torch.Tensor
    #: (S,) logarithm of the object's radius in pixels.
    log_size: torch.Tensor
    #: (S, 3) symmetric matrix (xx, xy, yy) of the elliptical distance q = d^T
    #: M d.
    matrix: torch.Tensor
    #: (S, 2) positive u and v of the distance term u sqrt(q) + v log(1+q).
    falloff: torch.Tensor
    #: (S, 3) logits of star, galaxy, artifact.
    classes: torch.Tensor
    #: (S, D) what tells one object from another.
    descriptor: torch.Tensor

    @property
    def radius(self):
        """(S,) pixels, within bounds."""
        return self.log_size.clamp(*LOG_SIZES).exp()


class SeedClass(nn.Module):
    """
    Star, galaxy or artifact: a few learned queries attend to all seeds of the
    image, and what they gather (the shape of its point sources, above all),
    which differs from image to image, stands beside each seed.
    """

    def __init__(self, dim, *, n_queries=8, n_gathered=24):
        super().__init__()
        self.query = nn.Linear(dim, n_queries)
        self.value = nn.Linear(dim, n_gathered)
        self.out = nn.Sequential(
            nn.Linear(dim + n_queries * n_gathered, 96), nn.ReLU(),
            nn.Linear(96, len(CLASSES) - 1))

    def forward(self, hidden):
        weight = self.query(hidden).softmax(dim=0)              # (S, Q)
        gathered = (weight.T @ self.value(hidden)).flatten()
        context = gathered.expand(len(hidden), -1)
        return self.out(torch.cat([hidden, context], dim=-1))


class InstanceHead(nn.Module):
    """Dense maps, seeds and pair scores of one level of the pyramid."""

    def __init__(self, *, in_channels, token_dim, widths=(32, 64, 96, 128),
                 n_middle=48, n_embedding=12, n_descriptor=24):
        super().__init__()
        self.in_channels = in_channels
        self.n_embedding, self.n_descriptor = n_embedding, n_descriptor
        self.stem = conv_block(4 * in_channels, widths[0])
        self.stages = nn.ModuleList(
            [conv_block(widths[0], widths[0]), *(
                nn.Sequential(conv_block(a, b, stride=2), conv_block(b, b))
                for a, b in zip(widths, widths[1:]))])
        self.fuse = nn.Sequential(
            conv_block(widths[3] + token_dim, widths[3], kernel_size=1),
            conv_block(widths[3], widths[3]))
        self.reduce = nn.ModuleList(
            nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(3))
        self.refine = nn.ModuleList(
            conv_block(widths[i], widths[i]) for i in range(3))
        self.middle = conv_block(2 * widths[0], n_middle)
        n_pixel = 1 + n_embedding + 1 + len(CLASSES) + 2
        self.pixel = nn.Linear(n_middle, 4 * n_pixel)
        # whether the image is binned: what is small is then seen elsewhere
        self.level = nn.Embedding(2, widths[0] + token_dim)
        self.read = nn.ModuleList(nn.Conv2d(n, 48, 1) for n in widths)
        self.n_out = (n_embedding + 1, 2, 1, 2, 2, n_descriptor)
        self.seed = nn.Sequential(nn.Linear(4 * 48, 192), nn.ReLU(),
                                  nn.Linear(192, 192), nn.ReLU())
        self.seed_out = nn.Linear(192, sum(self.n_out))
        self.seed_class = SeedClass(192)
        self.pair = nn.Sequential(nn.Linear(2 * n_descriptor + 6, 64),
                                  nn.ReLU(), nn.Linear(64, 32), nn.ReLU(),
                                  nn.Linear(32, 1))
        with torch.no_grad():               # centres are rare
            self.pixel.bias.view(4, -1)[:, 0] = -4.0
        nn.init.zeros_(self.level.weight)

    def forward(self, x, tokens, binned, *, dense=True):
        """
        `InstanceMaps` of channels (B, in_channels, H, W), sides multiples of
        16, and tokens (B, token_dim, H/16, W/16); ``binned``, (B,) int, is 1
        where the image is a binned one. Unless ``dense``, the pixels are left
        to be read where they are needed, which in training are few.
        """
        cells, pyramid = self.cells(x, tokens, binned)
        if dense:
            full = self._unshuffle(self.of_cells(cells))
            return InstanceMaps(full[..., 0], full[..., 1:], pyramid)
        heat = self._unshuffle(self.of_cells(cells, slice(1)))[..., 0]
        return InstanceMaps(heat, None, pyramid, cells)

    def convolutions(self):
        """The layers that `cells` runs."""
        return (self.stem, self.stages, self.fuse, self.reduce, self.refine,
                self.middle)

    def cells(self, x, tokens, binned):
        """
        The cells (B, H/2, W/2, M) and the pyramid of `InstanceMaps`, of what
        `forward` takes.
        """
        level = self.level(binned)[:, :, None, None]
        stem, deep = level.split([self.stem[0].out_channels,
                                  tokens.shape[1]], dim=1)
        first = self.stem(F.pixel_unshuffle(x, 2).contiguous(
            memory_format=torch.channels_last))
        detail = [self.stages[0](first + stem.to(first.dtype))]
        for stage in self.stages[1:]:
            detail.append(stage(detail[-1]))
        pyramid = [self.fuse(torch.cat(
            [detail[3], (tokens + deep).to(detail[3].dtype)], dim=1))]
        for i in (2, 1, 0):     # at twice the resolution, with more detail
            wide = F.interpolate(self.reduce[i](pyramid[0]), scale_factor=2,
                                 mode='bilinear', align_corners=False)
            pyramid.insert(0, self.refine[i](wide.add_(detail[i])))
        middle = self.middle(torch.cat([pyramid[0], first], dim=1))
        return middle.permute(0, 2, 3, 1), tuple(pyramid)

    def of_cells(self, cells, part=slice(None)):
        """
        The heat and the pixels, or a part of them, of the four pixels of each
        cell: (..., 4, E + 8) of (..., M).
        """
        weight = self.pixel.weight.unflatten(0, (4, -1))[:, part]
        bias = self.pixel.bias.unflatten(0, (4, -1))[:, part]
        # in float32 within autocast too: bfloat16 has steps of half a pixel
        # in a vote, and ties in the peaks of the heatmap
        with torch.autocast(cells.device.type, enabled=False):
            return F.linear(cells.to(weight.dtype), weight.flatten(0, 1),
                            bias.flatten()).unflatten(-1, (4, -1))

    @staticmethod
    def _unshuffle(parts):
        """(B, H/2, W/2, 4, n) of cells as (B, H, W, n) of their pixels."""
        parts = parts.unflatten(3, (2, 2)).transpose(2, 3)
        return parts.flatten(3, 4).flatten(1, 2)

    @staticmethod
    def by_cells(planes):
        """A view (B, H/2, W/2, 2, 2, ...) of planes (B, H, W, ...)."""
        return planes.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(
            2, 3)

    def read_pixels(self, maps, index):
        """
        Pixels (P, E + 7) of `InstanceMaps` of one image, at (P,) places in
        its flattened rows.
        """
        if maps.cells is None:
            return maps.pixels.flatten(0, 1).index_select(0, index)
        width = maps.heat.shape[1]
        y, x = index // width, index % width
        cell = (y // 2) * (width // 2) + x // 2
        parts = self.of_cells(
            maps.cells.flatten(0, 1).index_select(0, cell), slice(1, None))
        part = (2 * (y % 2) + x % 2)[:, None, None]
        return parts.take_along_dim(part, dim=1)[:, 0]

    def split_pixels(self, pixels):
        """
        Embedding (..., E), rest (...), classes (..., 4) and vote (..., 2), the
        last in pixels, of the pixels (..., E + 7) of `InstanceMaps`.
        """
        embedding, rest, classes, vote = pixels.split(
            [self.n_embedding, 1, len(CLASSES), 2], dim=-1)
        return embedding, rest[..., 0], classes, VOTE_SCALE * vote

    def read_seeds(self, pyramid, x, y):
        """
        `Seeds` at (S,) pixels of one image, from its features (C, H/s, W/s);
        all but their classes depends on each seed alone.
        """
        x, y = x.float(), y.float()
        # a 1x1 convolution of the map would give the same for more work
        read = [F.linear(sample(level, (x + 0.5) / stride - 0.5,
                                (y + 0.5) / stride - 0.5),
                         one.weight[:, :, 0, 0], one.bias)
                for stride, level, one in zip(STRIDES, pyramid, self.read)]
        hidden = self.seed(torch.cat(read, dim=-1))             # (S, 192)
        kernel, shift, size, shape, falloff, descriptor = self.seed_out(
            hidden).split(self.n_out, dim=-1)
        log_size = 1.5 + size[:, 0]
        scale = log_size.clamp(*LOG_SIZES).exp()
        centre = torch.stack([x, y], dim=-1) + shift * scale[:, None]
        # exp of a traceless symmetric matrix: any ellipse, no degeneracy
        a, b = shape.clamp(-1.5, 1.5).unbind(-1)
        rho = torch.sqrt(a**2 + b**2 + 1e-6)
        cosh, sinh = torch.cosh(2 * rho), torch.sinh(2 * rho) / rho
        matrix = torch.stack([cosh + a * sinh, b * sinh, cosh - a * sinh],
                             dim=-1) / scale[:, None]**2
        return Seeds(kernel, centre, log_size, matrix, F.softplus(falloff),
                     self.seed_class(hidden), descriptor)

    @staticmethod
    def distance(seeds, x, y):
        """
        Elliptical distance squared (S, P) of positions from each seed's
        centre; ``x`` and ``y`` are (P,) pixels, or (S, P) for each seed's own.
        """
        dx = x - seeds.centre[:, :1]
        dy = y - seeds.centre[:, 1:]
        m = seeds.matrix
        return (m[:, :1] * dx**2 + 2 * m[:, 1:2] * dx * dy
                + m[:, 2:] * dy**2)

    def score(self, seeds, embedding, x, y):
        """
        Score (S, P) of each seed in each pixel, to compete with the sky's: the
        embedding is (E, P) of the pixels, or (S, E, P) for each seed's own; x
        and y are what they vote for.
        """
        kernel, bias = seeds.kernel[:, :-1], seeds.kernel[:, -1:]
        if embedding.dim() == 2:
            match = kernel @ embedding
        else:
            match = torch.einsum('se,sep->sp', kernel, embedding)
        q = self.distance(seeds, x, y).clamp(max=1e4)
        u, v = seeds.falloff[:, :1], seeds.falloff[:, 1:]
        return match + bias - u * torch.sqrt(q + 1e-4) - v * torch.log1p(q)

    def pair_logits(self, seeds, claims, i, j, x, y):
        """
        Logit (P,) that two seeds belong to one object, as of `pair_features`;
        it is there to teach the descriptors.
        """
        return self.pair(self.pair_features(seeds, claims, i, j, x, y))[:, 0]

    def pair_features(self, seeds, claims, i, j, x, y):
        """
        What the head knows of pairs i and j, (P, 2 D + 6), symmetric:
        ``claims`` are two of (P,), the score of i less that of the sky at j's
        position, and of j at i's; x and y (S,) what the seeds' pixels vote
        for.
        """
        position = torch.stack([x, y], dim=-1)
        far = []
        for a, b in ((i, j), (j, i)):
            one = Seeds(*(part[a] for part in seeds))
            far.append(self.distance(one, position[b, :1], position[b, 1:]))
        far = torch.log1p(torch.cat(far, dim=-1).clamp(max=1e4)) / 4
        claim = torch.tanh(torch.stack(claims, dim=-1) / 4)
        size = (seeds.log_size[i] - seeds.log_size[j]).abs()
        apart = torch.log1p((seeds.centre[i] - seeds.centre[j]).norm(dim=-1))
        d = seeds.descriptor
        return torch.cat([
            (d[i] - d[j]).abs(), d[i] * d[j], far.amin(-1, keepdim=True),
            far.amax(-1, keepdim=True), claim.amin(-1, keepdim=True),
            claim.amax(-1, keepdim=True), size[:, None], apart[:, None]],
            dim=-1)
