# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The Vision Transformer: images of any size and any number of bands to tokens.

Parameter names are those of ``timm``, whose state dicts of DINO and DINOv2
load unchanged; its import costs more seconds than a segmentation. Shapes in
comments: ``B`` batch, ``D`` dim, ``h`` heads, ``P`` prefix tokens (CLS and
registers), ``N = gh * gw`` patch tokens, ``T = P + N``.
"""

import math
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

ROPE_BASE = 100.0  # from the fastest wave (1 rad per patch) to the slowest


def attention_weights(q, k):
    """Rows (B, h, R, T) of the attention of some queries to all keys."""
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return logits.softmax(dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention, with optional rotary positions."""

    def __init__(self, dim, n_heads, qkv_bias, qk_norm, norm_eps):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm, self.k_norm = (
            nn.LayerNorm(dim // n_heads, eps=norm_eps) if qk_norm
            else nn.Identity() for _ in range(2))
        self.proj = nn.Linear(dim, dim)

    def split_heads(self, x, rope):
        """Return queries, keys and values, each ``(B, h, T, D / h)``."""
        n_batch, n_tokens, dim = x.shape
        qkv = self.qkv(x).reshape(n_batch, n_tokens, 3, self.n_heads,
                                  dim // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        return q, k, v

    def forward(self, x, rope=None):
        q, k, v = self.split_heads(x, rope)
        if q.dtype is torch.bfloat16 and q.device.type == 'cpu':
            # the fused kernel takes two to five times as long, with gradient
            x_att = attention_weights(q, k) @ v  # (B, h, T, D / h)
        else:
            x_att = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x_att.transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    """Two linear layers, a GELU between; or the first gated by half of it."""

    def __init__(self, dim, hidden, gated=False):
        super().__init__()
        self.gated = gated
        self.fc1 = nn.Linear(dim, hidden * (2 if gated else 1))
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        if not self.gated:
            return self.fc2(F.gelu(self.fc1(x)))
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch."""

    def __init__(self, dim, init):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x):
        return x * self.gamma


def drop_some(x, rate):
    """Stochastic depth: drop a branch (B, T, D) of some samples."""
    keep = 1 - rate
    kept = x.new_empty(x.shape[0], 1, 1).bernoulli_(keep)  # (B, 1, 1)
    return x * kept / keep


class Block(nn.Module):
    """One layer of the transformer: attention, then an MLP."""

    def __init__(self, dim, n_heads, *, mlp_ratio=4.0, qkv_bias=True,
                 layer_scale=None, drop_path=0.0, mlp='gelu', norm_eps=1e-6,
                 qk_norm=False):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, n_heads, qkv_bias, qk_norm, norm_eps)
        scaled = layer_scale is not None
        self.ls1 = LayerScale(dim, layer_scale) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio), gated=mlp == 'swiglu')
        self.ls2 = LayerScale(dim, layer_scale) if scaled else nn.Identity()
        self.drop_path = drop_path      # a rate, in training

    def forward(self, x, rope=None):
        rate = self.drop_path if self.training else 0
        branch = self.ls1(self.attn(self.norm1(x), rope))
        x = x + (drop_some(branch, rate) if rate else branch)
        branch = self.ls2(self.mlp(self.norm2(x)))
        return x + (drop_some(branch, rate) if rate else branch)


def rotary_angles(grid, head_dim, device=None, relative=False):
    """
    Cosines and sines, each (N, head_dim / 2), of rotary positions of rows and
    columns in units of patches; or, if relative, of the image (DINOv3; Simeoni
    et al. 2025, arXiv:2508.10104).
    """
    n_freq = head_dim // 4
    step = torch.arange(n_freq, device=device, dtype=torch.float32) / n_freq
    freq = ROPE_BASE ** -step  # radians per patch
    rows, cols = (torch.arange(n, device=device) for n in grid)
    if relative:
        rows, cols = (2 * math.pi * ((2 * i + 1) / len(i) - 1)
                      for i in (rows, cols))
    row, col = rows[:, None, None] * freq, cols[None, :, None] * freq
    angle = torch.cat([row.expand(*grid, -1), col.expand(*grid, -1)], dim=-1)
    angle = angle.flatten(0, 1)  # (gh, gw, head_dim / 2) -> (N, head_dim / 2)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotate the patch tokens of ``(B, h, T, D / h)``; keep the prefix."""
    n_prefix = x.shape[2] - cos.shape[0]
    first, second = x[:, :, n_prefix:].chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin,
                        first * sin + second * cos], dim=-1)
    return torch.cat([x[:, :, :n_prefix], turned.to(x.dtype)], dim=2)


class Features(NamedTuple):
    """
    The CLS token (B, D) of the last layer, normed, and the patch tokens
    (B, D, gh, gw) of the last layers, the deepest last, each normed.
    """

    cls: torch.Tensor
    patches: list


class VisionTransformer(nn.Module):
    """A Vision Transformer with the parameter names of ``timm``."""

    def __init__(self, *, patch_size=16, in_channels=3, dim=384, depth=12,
                 n_heads=6, mlp_ratio=4.0, n_registers=0, layer_scale=None,
                 pos_embed='learned', grid_size=(14, 14), embed_prefix=True,
                 rope=False, drop_path=0.0, qkv_bias=True, mlp='gelu',
                 norm_eps=1e-6, qk_norm=False, patch_border=0):
        # all arguments, to make another of the same kind
        spec = {k: v for k, v in locals().items()
                if k not in ('self', '__class__')}
        super().__init__()
        self.spec = {**spec, 'grid_size': list(grid_size)}
        for name, value, known in (
                ('pos_embed', pos_embed, ('learned', 'none')),
                ('rope', rope, (False, True, 'dinov3')),
                ('mlp', mlp, ('gelu', 'swiglu'))):
            _require(value in known,
                     f'{name} must be one of {known}; got {value!r}')
        _require(dim % n_heads == 0,
                 f'dim must be a multiple of n_heads={n_heads}; got {dim}')
        _require(not rope or dim // n_heads % 4 == 0,
                 'rope needs dim / n_heads to be a multiple of 4; got '
                 f'{dim // n_heads}')
        self.patch_size, self.in_channels = patch_size, in_channels
        self.dim, self.head_dim = dim, dim // n_heads
        self.n_prefix, self.embed_prefix = 1 + n_registers, embed_prefix
        self.grid_size, self.rope = tuple(grid_size), rope
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(
            in_channels, dim, patch_size + 2 * patch_border, patch_size,
            padding=patch_border)))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.reg_token = self.pos_embed = None
        if n_registers:
            self.reg_token = nn.Parameter(torch.zeros(1, n_registers, dim))
        if pos_embed == 'learned':
            n_embed = math.prod(grid_size) + embed_prefix * self.n_prefix
            self.pos_embed = nn.Parameter(torch.zeros(1, n_embed, dim))
        self.blocks = nn.ModuleList(
            Block(dim, n_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias,
                  layer_scale=layer_scale, drop_path=rate, mlp=mlp,
                  norm_eps=norm_eps, qk_norm=qk_norm) for rate in
            torch.linspace(0, drop_path, depth, device='cpu').tolist())
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
        _require(x.ndim == 4, 'x must have 4 dimensions (B, C, H, W); got '
                              f'{tuple(x.shape)}')
        _require(x.shape[1] == self.in_channels,
                 f'x must have in_channels={self.in_channels}; got '
                 f'{x.shape[1]}')
        _require(x.numel() and not any(n % self.patch_size
                                       for n in x.shape[2:]),
                 'the height and width of x must be multiples of patch_size='
                 f'{self.patch_size}; got {x.shape[2]} x {x.shape[3]}')
        x = self._project(x)  # (B, C, H, W) -> (B, D, gh, gw)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # (B, N, D)
        if mask is not None:
            shape = len(x), *grid
            _require(mask.shape == shape, f'mask must have the shape {shape};'
                                          f' got {tuple(mask.shape)}')
            x = torch.where(mask.flatten(1)[..., None],
                            mask_token.to(x.dtype), x)
        prefix = self.cls_token  # (1, P, D)
        if self.reg_token is not None:
            prefix = torch.cat([prefix, self.reg_token], dim=1)
        if self.pos_embed is not None:
            n_embed = self.n_prefix if self.embed_prefix else 0
            x = x + resample_pos_embed(self.pos_embed[:, n_embed:],
                                       self.grid_size, grid)
            if self.embed_prefix:
                prefix = prefix + self.pos_embed[:, :n_embed]
        prefix = prefix.expand(x.shape[0], -1, -1)
        return torch.cat([prefix.to(x.dtype), x], dim=1), grid

    def _project(self, x):
        """The patches' embedding, in training as a product of matrices."""
        proj = self.patch_embed.proj
        if not (torch.is_grad_enabled() and proj.weight.requires_grad):
            return self.patch_embed(x)
        # the gradient of a convolution of long strides takes oneDNN many
        # times as long
        x = F.pad(x, 2 * [*reversed(proj.padding)])
        for axis in (2, 3):
            x = x.unfold(axis, proj.kernel_size[0], proj.stride[0])
        x = x.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (B, gh, gw, C k k)
        x = F.linear(x, proj.weight.flatten(1), proj.bias)
        return x.permute(0, 3, 1, 2)

    def forward(self, x):
        """The normed tokens (B, T, D) of the last layer."""
        x, grid = self.embed(x)
        rope = self.rotary(grid, x)
        for block in self.blocks:
            x = block(x, rope)  # (B, T, D)
        return self.norm(x)

    def forward_features(self, x, n_last=1, *, mask=None, mask_token=None):
        """
        `Features` of images (B, in_channels, H, W), of the last layers; in
        place of the patches that a mask (B, gh, gw) hides stands the token
        (D,), before the positional embedding.
        """
        _require(1 <= n_last <= len(self.blocks),
                 'n_last must be between 1 and the depth '
                 f'{len(self.blocks)}; got {n_last!r}')
        x, grid = self.embed(x, mask, mask_token)
        rope = self.rotary(grid, x)
        patches, n_skip = [], len(self.blocks) - n_last
        for i, block in enumerate(self.blocks):
            x = block(x, rope)  # (B, T, D)
            if i >= n_skip:
                tokens = self.norm(x)
                patches.append(tokens[:, self.n_prefix:].transpose(1, 2)
                               .unflatten(2, grid))  # (B, D, gh, gw)
        return Features(tokens[:, 0], patches)

    def rotary(self, grid, x):
        """Return cosines and sines, each ``(N, D / 2h)``, or `None`."""
        if not self.rope:
            return None
        return rotary_angles(grid, self.head_dim, x.device,
                             relative=self.rope == 'dinov3')


def _require(fits, msg):
    if not fits:
        raise ValueError(msg)


def resample_pos_embed(pos, old_grid, new_grid):
    """Resample ``(1, gh * gw, D)`` to a new grid, as timm does."""
    if tuple(old_grid) == tuple(new_grid):
        return pos
    maps = pos.float().transpose(1, 2).unflatten(2, tuple(old_grid))
    maps = F.interpolate(maps, size=tuple(new_grid), mode='bicubic',
                         antialias=True)  # (1, D, gh, gw)
    return maps.flatten(2).transpose(1, 2).to(pos.dtype)
