# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
The layers of the Vision Transformer in `astrodino_seg.models.vit`.

Attribute names are those of ``timm``, because they name the parameters.
Shapes in comments: ``B`` batch, ``D`` dim, ``h`` heads, ``P`` prefix tokens
(CLS and registers), ``N = gh * gw`` patch tokens, ``T = P + N``.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ['Attention', 'Block', 'DropPath', 'LayerScale', 'Mlp',
           'PatchEmbed', 'SwiGLU', 'rotary_angles', 'rotate']

ROPE_BASE = 100.0  # from the fastest wave (1 rad per patch) to the slowest


class PatchEmbed(nn.Module):
    """
    Cut the image into patches, with their borders, and project each to one
    token.
    """

    def __init__(self, patch_size, in_channels, dim, border=0):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, padding=border,
                              kernel_size=patch_size + 2 * border,
                              stride=patch_size)

    def forward(self, x):
        return self.proj(x)  # (B, C, H, W) -> (B, D, gh, gw)


def attend(q, k, v):
    """Return ``softmax(q k^T / sqrt(d)) v``, each ``(B, h, T, d)``."""
    if q.dtype is torch.bfloat16 and q.device.type == 'cpu':
        # the fused kernel takes two to five times as long there, with gradient
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return logits.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head self-attention, with optional rotary positions."""

    def __init__(self, dim, n_heads, qkv_bias, *, qk_norm=False,
                 norm_eps=1e-6):
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
        x_att = attend(q, k, v)  # (B, h, T, D / h)
        return self.proj(x_att.transpose(1, 2).reshape(x.shape))

    def cls_attention(self, x, rope=None):
        """Return the row of the CLS token, ``(B, h, T)``."""
        q, k, _ = self.split_heads(x, rope)
        logits = (q[:, :, :1] @ k.transpose(-2, -1)).squeeze(2)  # (B, h, T)
        return (logits * q.shape[-1] ** -0.5).softmax(dim=-1)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """Two linear layers, the first gated by half of itself (DINOv2, ViT-g)."""

    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch."""

    def __init__(self, dim, init):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x):
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the branch of some samples."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = x.new_empty(x.shape[0], 1, 1).bernoulli_(keep)  # (B, 1, 1)
        return x * kept / keep


class Block(nn.Module):
    """One layer of the transformer: attention, then an MLP."""

    def __init__(self, dim, n_heads, *, mlp_ratio, qkv_bias, layer_scale,
                 drop_path, mlp='gelu', norm_eps=1e-6, qk_norm=False):
        super().__init__()

        def scale():
            return (nn.Identity() if layer_scale is None
                    else LayerScale(dim, layer_scale))

        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, n_heads, qkv_bias, qk_norm=qk_norm,
                              norm_eps=norm_eps)
        self.ls1 = scale()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = (Mlp if mlp == 'gelu' else SwiGLU)(
            dim, round(dim * mlp_ratio))
        self.ls2 = scale()
        self.drop_path = DropPath(drop_path)

    def forward(self, x, rope=None):
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), rope)))
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


def rotary_angles(grid, head_dim, device=None, relative=False):
    """
    Return the cosines and sines of two-dimensional rotary positions.

    Half of the waves count rows and half count columns, in units of patches
    and not of the image, so that a larger image is no different from a
    smaller one. DINOv3 has the same waves in units of the image.

    Parameters
    ----------
    grid : tuple of int
        The rows and columns of patches.
    head_dim : int
        The length of a query; a multiple of 4.
    device : `~torch.device`, optional
        Where to make them.
    relative : bool, optional
        Whether positions run from -1 to 1 over the image and the fastest
        wave has the period 1 (DINOv3; Simeoni et al. 2025, arXiv:2508.10104).

    Returns
    -------
    cos, sin : `~torch.Tensor`
        Each ``(N, head_dim / 2)``, in float32.
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
