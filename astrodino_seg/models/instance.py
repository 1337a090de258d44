# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The model that tells objects apart at one level of an image pyramid.

The same network sees the image and its binned copies. At each level it calls
the objects that have the size of those in a training crop, and all that is
larger is the rest, with the sky (as `Singh & Davis 2018
<https://arxiv.org/abs/1711.08189>`_ do in training and in use). Its
convolutions begin at a stride of 2, on the four pixels of each cell, and what
has the full resolution is read from the cells' four parts (`Shi et al. 2016
<https://arxiv.org/abs/1609.05158>`_): the layers at full resolution, whose
memory costs most, are not needed. Shapes in comments are those of
`astrodino_seg.heads`.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from astrodino_seg.convolutions import ConvBlock
from astrodino_seg.encoder import DEFAULT_VIT, dense_tokens
from astrodino_seg.heads import (
    N_CLASSES,
    VOTE_SCALE,
    GroupingHead,
    SeedClass,
)
from astrodino_seg.planes import NoiseUnits
from astrodino_seg.models.decision import Decision
from astrodino_seg.preprocess import PreprocessSpec
from astrodino_seg.vit import VisionTransformer
from astrodino_seg.weights import write_weights

__all__ = ['CALLED', 'INSTANCE_FORMAT', 'InstanceHead', 'InstanceMaps',
           'InstanceModel', 'KEPT']

#: Radii, in pixels of the level, of the objects that are called: those of a
#: binned image, whose next finer level has called what is smaller, and at
#: most so many at any level,
CALLED = 12, 26
#: and of those that may be called or not, on either side.
KEPT = 9, 34
#: Name and version of the file format of an `InstanceModel`.
INSTANCE_FORMAT = 'astrodino_seg/2'


class InstanceMaps(NamedTuple):
    """
    What the network says of every pixel of one level.

    Attributes
    ----------
    heat : `~torch.Tensor`
        (B, H, W) logit that the centre of an object of this level lies here.
    pixels : `~torch.Tensor`
        (B, H, W, E + 7): the embedding, the score of the rest (the sky and
        what is larger), the logits of sky, star, galaxy and artifact, and
        the vote (x, y) in units of `~astrodino_seg.heads.VOTE_SCALE`.
    pyramid : tuple of `~torch.Tensor`
        Features at strides 2, 4, 8, 16 that seeds are read from.
    """

    heat: torch.Tensor
    pixels: torch.Tensor
    pyramid: tuple


class InstanceHead(GroupingHead):
    """
    Dense maps, seeds and pair scores of one level of the pyramid.

    Parameters
    ----------
    in_channels : int
        Channels of the network's input.
    token_dim : int
        Length of the ViT's tokens (at stride 16).
    widths : sequence of int, optional
        Channels of the convolutions at strides 2, 4, 8, 16.
    n_middle : int, optional
        Channels of the last layer, at stride 2.
    n_embedding : int, optional
        Length of the pixel embedding.
    n_descriptor : int, optional
        Length of the descriptor that seeds are compared by.
    """

    def __init__(self, *, in_channels, token_dim, widths=(32, 64, 96, 128),
                 n_middle=48, n_embedding=12, n_descriptor=24):
        nn.Module.__init__(self)
        self.in_channels = in_channels
        self.n_embedding, self.n_descriptor = n_embedding, n_descriptor
        self.stem = ConvBlock(4 * in_channels, widths[0])
        self.stages = nn.ModuleList(
            [ConvBlock(widths[0], widths[0]), *(
                nn.Sequential(ConvBlock(a, b, stride=2), ConvBlock(b, b))
                for a, b in zip(widths, widths[1:]))])
        self.fuse = nn.Sequential(
            ConvBlock(widths[3] + token_dim, widths[3], kernel_size=1),
            ConvBlock(widths[3], widths[3]))
        self.reduce = nn.ModuleList(
            nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(3))
        self.refine = nn.ModuleList(
            ConvBlock(widths[i], widths[i]) for i in range(3))
        self.middle = ConvBlock(2 * widths[0], n_middle)
        n_pixel = 1 + n_embedding + 1 + N_CLASSES + 2
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

    def forward(self, x, tokens, binned):
        """
        Predict the dense maps.

        Parameters
        ----------
        x : `~torch.Tensor`
            (B, in_channels, H, W), sides multiples of 16.
        tokens : `~torch.Tensor`
            (B, token_dim, H/16, W/16).
        binned : `~torch.Tensor`
            (B,) int: 1 where the image is a binned one, else 0.

        Returns
        -------
        maps : `InstanceMaps`
            The maps.
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
        for i in (2, 1, 0):
            pyramid.insert(0, self._finer(i, pyramid[0], detail[i]))
        middle = self.middle(torch.cat([pyramid[0], first], dim=1))
        # in float32 within autocast too: bfloat16 has steps of half a pixel
        # in a vote, and ties in the peaks of the heatmap
        with torch.autocast(middle.device.type, enabled=False):
            middle = middle.permute(0, 2, 3, 1).to(self.pixel.weight.dtype)
            parts = self.pixel(middle)              # (B, H/2, W/2, 4 (E + 8))
        n, h, w, _ = parts.shape
        full = parts.view(n, h, w, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        full = full.reshape(n, 2 * h, 2 * w, -1)
        return InstanceMaps(full[..., 0], full[..., 1:], tuple(pyramid))

    def split_pixels(self, pixels):
        """
        The parts of the pixels' values.

        Parameters
        ----------
        pixels : `~torch.Tensor`
            (..., E + 7) of `InstanceMaps`.

        Returns
        -------
        embedding, rest, classes, vote : `~torch.Tensor`
            (..., E), (...), (..., 4) and (..., 2), the last in pixels.
        """
        embedding, rest, classes, vote = pixels.split(
            [self.n_embedding, 1, N_CLASSES, 2], dim=-1)
        return embedding, rest[..., 0], classes, VOTE_SCALE * vote


class InstanceModel(nn.Module):
    """
    Preprocessing spec, Vision Transformer and head.

    Parameters
    ----------
    vit : dict, optional
        Arguments of `~astrodino_seg.vit.VisionTransformer` but
        ``in_channels``.
    head : dict, optional
        Arguments of `InstanceHead` but the first two.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.preprocess.PreprocessSpec`.
    decision : dict, optional
        Arguments of `~astrodino_seg.models.decision.Decision`, which is
        fitted to a network that is trained.
    provenance : dict, optional
        Where the weights come from, and what was measured with them.

    Attributes
    ----------
    in_bfloat16 : bool
        Whether the network runs in bfloat16; `False` unless it is set.
    """

    in_bfloat16 = False

    def __init__(self, *, vit=None, head=None, preprocess=None,
                 decision=None, provenance=None):
        super().__init__()
        self.preprocess = PreprocessSpec(**(preprocess or {}))
        n_channels = self.preprocess.n_channels
        self.spec = {'vit': {**DEFAULT_VIT, **(vit or {})},
                     'head': dict(head or {}),
                     'preprocess': self.preprocess.to_dict()}
        self.provenance = dict(provenance or {})
        self.vit = VisionTransformer(in_channels=n_channels,
                                     **self.spec['vit'])
        self.head = InstanceHead(in_channels=n_channels,
                                 token_dim=self.vit.dim, **self.spec['head'])
        self.decision = None
        if decision is not None:
            self.put_decision(Decision(**decision))

    def put_decision(self, decision):
        """Take a `~astrodino_seg.models.decision.Decision` as its own."""
        self.decision = decision
        self.spec['decision'] = dict(decision.spec)

    @property
    def planes(self):
        """The rule for the input, `~astrodino_seg.planes.NoiseUnits`."""
        return NoiseUnits(self.preprocess)

    def forward(self, x, binned):
        """
        Predict the dense maps of a batch; see `InstanceHead.forward`.

        Returns
        -------
        maps : `InstanceMaps`
            The maps.
        """
        return self.head(x, self.tokens(x), binned)

    def tokens(self, x):
        """The backbone's last features, (B, dim, H/16, W/16)."""
        return dense_tokens(self.vit, x)

    def fused(self):
        """
        Fold the batch norms into the convolutions, for inference only.

        Returns
        -------
        model : `InstanceModel`
            This model, in evaluation mode.
        """
        self.eval()
        for block in self.modules():
            if isinstance(block, ConvBlock) and isinstance(
                    block[1], nn.BatchNorm2d):
                block[0] = torch.nn.utils.fusion.fuse_conv_bn_eval(
                    block[0], block[1])
                block[1] = nn.Identity()
        return self.requires_grad_(False).to(
            memory_format=torch.channels_last)

    def save(self, path, *, half=False):
        """
        Write the weights, the spec and the provenance to one file.

        Parameters
        ----------
        path : path-like
            The safetensors file. It appears whole or not at all.
        half : bool, optional
            Whether to store float16, in half the space.

        Raises
        ------
        ValueError
            If the batch norms are folded.
        """
        if any(isinstance(block, ConvBlock) and isinstance(
                block[1], nn.Identity) for block in self.modules()):
            msg = 'a fused model cannot be saved: its batch norms are gone'
            raise ValueError(msg)
        write_weights(path, self, INSTANCE_FORMAT, half=half)
