# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The model that tells objects apart: preprocessing, backbone and grouping head.
"""

import torch
from torch import nn

from astrodino_seg.encoder import DEFAULT_VIT, dense_tokens
from astrodino_seg.heads import ConvBlock, GroupingHead
from astrodino_seg.pairs import PairScore, n_features
from astrodino_seg.preprocess import PreprocessSpec
from astrodino_seg.unet import UNet
from astrodino_seg.vit import VisionTransformer
from astrodino_seg.weights import write_weights

__all__ = ['FORMAT', 'Model']

#: Name and version of the file format of a `Model`.
FORMAT = 'astrodino_seg/1'


class Model(nn.Module):
    """
    Preprocessing spec, backbone and grouping head.

    Parameters
    ----------
    vit : dict, optional
        Arguments of `~astrodino_seg.vit.VisionTransformer` but
        ``in_channels``.
    unet : dict, optional
        Arguments of `~astrodino_seg.unet.UNet` but ``in_channels``, to have
        that, the control, in place of the ViT.
    head : dict, optional
        Arguments of `~astrodino_seg.heads.GroupingHead` but ``in_channels``
        and ``token_dim``.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.preprocess.PreprocessSpec`.
    provenance : dict, optional
        Where the weights come from, and thresholds measured with them.

    Raises
    ------
    ValueError
        If both ``vit`` and ``unet`` are given.
    """

    def __init__(self, *, vit=None, unet=None, head=None, preprocess=None,
                 provenance=None):
        super().__init__()
        if vit is not None and unet is not None:
            msg = f'only one of vit={vit!r} and unet={unet!r} can be given'
            raise ValueError(msg)
        self.preprocess = PreprocessSpec(**(preprocess or {}))
        n_channels = self.preprocess.n_channels
        if unet is None:
            self.spec = {'vit': {**DEFAULT_VIT, **(vit or {})}}
            self.vit = VisionTransformer(in_channels=n_channels,
                                         **self.spec['vit'])
        else:
            self.spec = {'unet': dict(unet)}
            self.unet = UNet(in_channels=n_channels, **unet)
        self.spec.update(head=dict(head or {}),
                         preprocess=self.preprocess.to_dict())
        self.provenance = dict(provenance or {})
        backbone = self.vit if unet is None else self.unet
        self.head = GroupingHead(in_channels=n_channels,
                                 token_dim=backbone.dim, **self.spec['head'])
        self.pairs = PairScore(n_features(self.head.n_descriptor, n_channels))

    def forward(self, x):
        """
        Predict the dense maps of a batch of channels (B, C, H, W).

        Returns
        -------
        maps : `~astrodino_seg.heads.DenseMaps`
            The maps.
        """
        return self.head(x, self.tokens(x))

    def tokens(self, x):
        """The backbone's last features, (B, dim, H/16, W/16)."""
        if 'unet' in self.spec:
            return self.unet(x)
        return dense_tokens(self.vit, x)

    def fused(self):
        """
        Fold the batch norms into the convolutions, for inference only.

        Returns
        -------
        model : `Model`
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
            Whether to store float16, in half the space. `load_model`
            returns float32 all the same.
        """
        if any(isinstance(block, ConvBlock) and isinstance(
                block[1], nn.Identity) for block in self.modules()):
            msg = 'a fused model cannot be saved: its batch norms are gone'
            raise ValueError(msg)
        write_weights(path, self, FORMAT, half=half)
