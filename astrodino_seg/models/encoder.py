# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A Vision Transformer without a head, and its tokens as dense heads take them.
"""

from torch import nn
from torch.nn import functional as F

from astrodino_seg.inputs.channels import PreprocessSpec
from astrodino_seg.models.convolutions import STRIDES
from astrodino_seg.models.files import write_weights
from astrodino_seg.models.vit import VisionTransformer

__all__ = ['DEFAULT_VIT', 'ENCODER_FORMAT', 'Encoder', 'dense_tokens']

#: Name and version of the file format of an `Encoder`.
ENCODER_FORMAT = 'astrodino_seg/backbone-1'
#: Arguments of the transformer unless they are given.
DEFAULT_VIT = {'patch_size': 16, 'dim': 192, 'depth': 6, 'n_heads': 3,
               'pos_embed': 'none', 'rope': True, 'n_registers': 2}
STRIDE = STRIDES[-1]        # of the tokens that dense heads take


class Encoder(nn.Module):
    """
    Preprocessing spec and Vision Transformer, without a head.

    What `~astrodino_seg.train.pretrain` trains, and a `Model` can start
    from.

    Parameters
    ----------
    vit : dict, optional
        Arguments of `~astrodino_seg.models.vit.VisionTransformer` but
        ``in_channels``.
    preprocess : dict, optional
        Arguments of `~astrodino_seg.inputs.channels.PreprocessSpec`.
    provenance : dict, optional
        Where the weights come from.
    """

    def __init__(self, *, vit=None, preprocess=None, provenance=None):
        super().__init__()
        self.preprocess = PreprocessSpec(**(preprocess or {}))
        self.spec = {'vit': {**DEFAULT_VIT, **(vit or {})},
                     'preprocess': self.preprocess.to_dict()}
        self.provenance = dict(provenance or {})
        self.vit = VisionTransformer(in_channels=self.preprocess.n_channels,
                                     **self.spec['vit'])

    def forward(self, x):
        """
        The features of a batch of channels (B, C, H, W).

        Returns
        -------
        features : `~astrodino_seg.models.vit.Features`
            CLS token and patch tokens.
        """
        return self.vit.forward_features(x)

    def save(self, path, *, half=False):
        """
        Write the weights, the spec and the provenance to one file.

        Parameters
        ----------
        path : path-like
            The safetensors file. It appears whole or not at all.
        half : bool, optional
            Whether to write the weights as float16.
        """
        write_weights(path, self, ENCODER_FORMAT, half=half)


def dense_tokens(vit, x):
    """
    Patch tokens on the grid that dense heads take.

    Patches that divide 16 pixels are averaged. For others (14, 12) the image
    is first resampled, so that a patch covers 16 of its pixels.

    Parameters
    ----------
    vit : `~astrodino_seg.models.vit.VisionTransformer`
        The transformer.
    x : `~torch.Tensor`
        (B, plane, H, W), sides multiples of 16.

    Returns
    -------
    tokens : `~torch.Tensor`
        (B, dim, H/16, W/16).
    """
    patch = vit.patch_size
    if STRIDE % patch:
        x = F.interpolate(x, size=[n // STRIDE * patch for n in x.shape[-2:]],
                          mode='bilinear', align_corners=False, antialias=True)
        return vit.forward_features(x).patches[-1]
    tokens = vit.forward_features(x).patches[-1]
    return tokens if patch == STRIDE else F.avg_pool2d(tokens,
                                                       STRIDE // patch)
