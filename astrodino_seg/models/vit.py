# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The Vision Transformer: images of any size and any number of bands to tokens.

Parameter names equal those of ``timm``'s ``VisionTransformer``, so that a
DINO or DINOv2 state dict in timm's layout loads unchanged. Shapes in comments:
``B`` batch, ``D`` dim, ``h`` heads, ``P`` prefix tokens (CLS and registers),
``N = gh * gw`` patch tokens, ``T = P + N``.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from astrodino_seg.models.layers import Block, PatchEmbed, rotary_angles

__all__ = ['Features', 'VisionTransformer']


class Features(NamedTuple):
    """
    What `VisionTransformer.forward_features` returns.

    Attributes
    ----------
    cls : `~torch.Tensor`
        The CLS token of the last layer, normed; shape ``(B, D)``.
    patches : list of `~torch.Tensor`
        The patch tokens of the last ``n_last`` layers, the deepest last, each
        after the final norm; shape ``(B, D, gh, gw)``.
    attention : `~torch.Tensor` or `None`
        The attention of the CLS token in the last layer, per head; shape
        ``(B, n_heads, P + gh * gw)``. Each row sums to 1; the first ``P``
        entries are the CLS and register tokens.
    """

    cls: torch.Tensor
    patches: list
    attention: torch.Tensor | None = None


class VisionTransformer(nn.Module):
    """
    A Vision Transformer with the parameter names of ``timm``.

    Parameters
    ----------
    patch_size : int, optional
        The side of a patch in pixels.
    in_channels : int, optional
        The number of bands of the image.
    dim, depth, n_heads : int, optional
        The length of a token, the number of layers, and the number of
        attention heads of each layer. ``dim`` is a multiple of ``n_heads``.
    mlp_ratio : float, optional
        The hidden size of the MLP in units of ``dim``.
    mlp : {'gelu', 'swiglu'}, optional
        The kind of MLP. ViT-g of DINOv2 and some of DINOv3 have ``'swiglu'``.
    norm_eps : float, optional
        What the layer norms add to the variance; 1e-5 in DINOv3.
    n_registers : int, optional
        The number of register tokens, which follow the CLS token.
    layer_scale : float, optional
        The initial factor of each residual branch (DINOv2). `None` has none.
    pos_embed : {'learned', 'none'}, optional
        Whether a positional embedding is learned and added to the tokens. It
        is resampled if the image has another grid than ``grid_size``.
    grid_size : tuple of int, optional
        The rows and columns of the grid of patches for which the positional
        embedding is stored. Ignored if ``pos_embed='none'``.
    embed_prefix : bool, optional
        Whether the positional embedding has entries for the CLS and register
        tokens. `False` is timm's ``no_embed_class=True``, used by the DINOv2
        models with registers. Ignored if ``pos_embed='none'``.
    rope : bool or 'dinov3', optional
        Whether queries and keys of the patch tokens are rotated by their row
        and column, in units of patches. The attention between two patches
        then depends on their offset alone, on a grid of any size. With
        ``'dinov3'`` positions are in units of the image instead. Has no
        parameters; ``dim / n_heads`` is a multiple of 4.
    drop_path : float, optional
        The rate of stochastic depth in the last layer; it rises linearly
        from 0 in the first. Ignored outside training.
    qkv_bias : bool, optional
        Whether queries, keys and values have a bias.
    qk_norm : bool, optional
        Whether queries and keys are normed (Dehghani et al. 2023,
        arXiv:2302.05442), so that attention cannot collapse to single
        tokens.
    patch_border : int, optional
        How many pixels beyond its patch a token sees on each side, so that
        less depends on where the grid of patches lies.
    """

    def __init__(self, *, patch_size=16, in_channels=3, dim=384, depth=12,
                 n_heads=6, mlp_ratio=4.0, n_registers=0, layer_scale=None,
                 pos_embed='learned', grid_size=(14, 14), embed_prefix=True,
                 rope=False, drop_path=0.0, qkv_bias=True, mlp='gelu',
                 norm_eps=1e-6, qk_norm=False, patch_border=0):
        # all arguments, to make another of the same kind
        spec = {k: v for k, v in locals().items()
                if k not in ('self', '__class__')}
        super().__init__()
        self.spec = spec
        check_spec(dim, n_heads, pos_embed, rope, mlp)
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.dim = dim
        self.n_prefix = 1 + n_registers
        self.grid_size = tuple(grid_size)
        self.embed_prefix = embed_prefix
        self.rope = rope
        self.head_dim = dim // n_heads

        self.patch_embed = PatchEmbed(patch_size, in_channels, dim,
                                      patch_border)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.reg_token = self.pos_embed = None
        if n_registers:
            self.reg_token = nn.Parameter(torch.zeros(1, n_registers, dim))
        if pos_embed == 'learned':
            n_embed = self.grid_size[0] * self.grid_size[1]
            n_embed += self.n_prefix if embed_prefix else 0
            self.pos_embed = nn.Parameter(torch.zeros(1, n_embed, dim))
        rates = torch.linspace(0, drop_path, depth, device='cpu').tolist()
        self.blocks = nn.ModuleList(
            Block(dim, n_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias,
                  layer_scale=layer_scale, drop_path=rate, mlp=mlp,
                  norm_eps=norm_eps, qk_norm=qk_norm) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.init_weights()

    def init_weights(self):
        """Draw all weights anew, as DINO does."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for param, std in ((self.cls_token, 1e-6), (self.reg_token, 1e-6),
                           (self.pos_embed, 0.02)):
            if param is not None:
                nn.init.trunc_normal_(param, std=std)

    def embed(self, x, mask=None, mask_token=None):
        """Return the tokens ``(B, T, D)`` of an image, and the grid."""
        check_image(x, self.in_channels, self.patch_size)
        x = self.patch_embed(x)  # (B, C, H, W) -> (B, D, gh, gw)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # (B, N, D)
        if mask is not None:
            check_mask(mask, x.shape[0], grid)
            x = torch.where(mask.flatten(1)[..., None],
                            mask_token.to(x.dtype), x)
        prefix = [self.cls_token]
        if self.reg_token is not None:
            prefix.append(self.reg_token)
        prefix = torch.cat(prefix, dim=1)  # (1, P, D)
        if self.pos_embed is not None:
            n_embed = self.n_prefix if self.embed_prefix else 0
            x = x + resample_pos_embed(self.pos_embed[:, n_embed:],
                                       self.grid_size, grid)
            if self.embed_prefix:
                prefix = prefix + self.pos_embed[:, :n_embed]
        prefix = prefix.expand(x.shape[0], -1, -1)
        return torch.cat([prefix.to(x.dtype), x], dim=1), grid

    def forward(self, x):
        """
        Return the normed tokens of the last layer.

        Parameters
        ----------
        x : `~torch.Tensor`
            The images, ``(B, in_channels, H, W)``; ``H`` and ``W`` are
            multiples of ``patch_size``.

        Returns
        -------
        tokens : `~torch.Tensor`
            ``(B, T, D)``: the CLS token, the registers, then the patches row
            by row.
        """
        x, grid = self.embed(x)
        rope = self.rotary(grid, x)
        for block in self.blocks:
            x = block(x, rope)  # (B, T, D)
        return self.norm(x)

    def forward_features(self, x, n_last=1, return_attention=False, *,
                         mask=None, mask_token=None):
        """
        Return the features that heads and galleries work with.

        Parameters
        ----------
        x : `~torch.Tensor`
            The images, ``(B, in_channels, H, W)``; ``H`` and ``W`` are
            multiples of ``patch_size``.
        n_last : int, optional
            Of how many of the last layers to return the patch tokens.
        return_attention : bool, optional
            Whether to return also the attention of the CLS token in the last
            layer. The other outputs do not depend on it.
        mask : `~torch.Tensor`, optional
            ``(B, gh, gw)`` bool: the patches that are hidden.
        mask_token : `~torch.Tensor`, optional
            ``(D,)``, what stands in their place, before the positional
            embedding. Ignored without a mask.

        Returns
        -------
        features : `Features`
            The CLS token, the patch tokens as maps, and the attention.
        """
        if not 1 <= n_last <= len(self.blocks):
            msg = (f'n_last must be between 1 and the depth '
                   f'{len(self.blocks)}; got {n_last!r}')
            raise ValueError(msg)
        x, grid = self.embed(x, mask, mask_token)
        rope = self.rotary(grid, x)
        patches, attention = [], None
        n_skip = len(self.blocks) - n_last
        for i, block in enumerate(self.blocks):
            if return_attention and i == len(self.blocks) - 1:
                attention = block.attn.cls_attention(block.norm1(x), rope)
            x = block(x, rope)  # (B, T, D)
            if i >= n_skip:
                tokens = self.norm(x)
                patches.append(tokens[:, self.n_prefix:].transpose(1, 2)
                               .unflatten(2, grid))  # (B, D, gh, gw)
        return Features(tokens[:, 0], patches, attention)

    def rotary(self, grid, x):
        """Return cosines and sines, each ``(N, D / 2h)``, or `None`."""
        if not self.rope:
            return None
        return rotary_angles(grid, self.head_dim, x.device,
                             relative=self.rope == 'dinov3')


def check_spec(dim, n_heads, pos_embed, rope, mlp='gelu'):
    """Raise `ValueError` for sizes that do not fit one another."""
    if dim % n_heads:
        msg = f'dim must be a multiple of n_heads={n_heads}; got {dim}'
        raise ValueError(msg)
    if rope and (dim // n_heads) % 4:
        msg = ('rope needs dim / n_heads to be a multiple of 4; got '
               f'{dim // n_heads}')
        raise ValueError(msg)
    if pos_embed not in ('learned', 'none'):
        msg = f"pos_embed must be 'learned' or 'none'; got {pos_embed!r}"
        raise ValueError(msg)
    if rope not in (False, True, 'dinov3'):
        msg = f"rope must be a bool or 'dinov3'; got {rope!r}"
        raise ValueError(msg)
    if mlp not in ('gelu', 'swiglu'):
        msg = f"mlp must be 'gelu' or 'swiglu'; got {mlp!r}"
        raise ValueError(msg)


def check_image(x, in_channels, patch_size):
    """Raise `ValueError` for images that the model cannot take."""
    if x.ndim != 4:
        msg = f'x must have 4 dimensions (B, C, H, W); got {tuple(x.shape)}'
        raise ValueError(msg)
    if x.shape[1] != in_channels:
        msg = f'x must have in_channels={in_channels}; got {x.shape[1]}'
        raise ValueError(msg)
    height, width = x.shape[-2:]
    if not height or not width or height % patch_size or width % patch_size:
        msg = (f'the height and width of x must be multiples of patch_size='
               f'{patch_size}; got {height} x {width}')
        raise ValueError(msg)


def check_mask(mask, n_images, grid):
    """Raise `ValueError` for a mask that is not one value a patch."""
    if tuple(mask.shape) != (n_images, *grid):
        msg = (f'mask must have the shape {(n_images, *grid)}; got '
               f'{tuple(mask.shape)}')
        raise ValueError(msg)


def resample_pos_embed(pos, old_grid, new_grid):
    """Resample ``(1, gh * gw, D)`` to a new grid, as timm does."""
    if tuple(old_grid) == tuple(new_grid):
        return pos
    maps = pos.float().transpose(1, 2).unflatten(2, tuple(old_grid))
    maps = F.interpolate(maps, size=tuple(new_grid), mode='bicubic',
                         antialias=True)  # (1, D, gh, gw)
    return maps.flatten(2).transpose(1, 2).to(pos.dtype)
