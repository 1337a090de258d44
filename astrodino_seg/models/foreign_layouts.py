# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Names of parameters in the files of others, and what they are here.

All is data but the few parameters that are stored in another form. Layouts:
DINO (Caron et al. 2021, arXiv:2104.14294), DINOv2 (Oquab et al. 2023,
arXiv:2304.07193) with registers (Darcet et al. 2023, arXiv:2309.16588) and
with its blocks in chunks, DINOv3 (Simeoni et al. 2025, arXiv:2508.10104), each
as its authors and as ``timm`` have it, and AstroCLIP.
"""

import math
import re

import torch

from astrodino_seg.errors import ModelFileError

__all__ = ['convert']

#: What wraps the names of a backbone's parameters, outermost first.
PREFIXES = ('module.', '_orig_mod.', 'image_encoder.backbone.', 'backbone.')

#: Parameters that a backbone does without, and why.
UNUSED = {
    r'(dino_head|ibot_head|head)\.': 'heads of the training',
    r'mask_token$': 'stands for patches that the training hides',
    r'local_cls_norm\.': 'norm of small crops in the training (DINOv3, 7B)',
    r'rope_embed\.periods$': 'constants that are computed here',
    r'.*\.attn\.qkv\.bias_mask$': 'says that keys have no bias (DINOv3)',
    r'image_encoder\.(cross_attention|mlp)\.': "AstroCLIP's image head",
    r'spectrum_encoder\.': "AstroCLIP's spectra",
    r'logit_scale$': "AstroCLIP's loss",
}

#: Names to replace. Of the two numbers of a chunked block the second counts.
RENAMED = {
    r'^blocks\.\d+\.(\d+)\.': r'blocks.\1.',
    r'^(register|storage)_tokens$': 'reg_token',
    r'\.gamma_([12])$': r'.ls\1.gamma',
    r'\.mlp\.w12\.': '.mlp.fc1.',
    r'\.mlp\.w1\.': '.mlp.fc1_g.',
    r'\.mlp\.w2\.': '.mlp.fc1_x.',
    r'\.mlp\.w3\.': '.mlp.fc2.',
}

#: Length of a query in DINO, DINOv2 and DINOv3, but for one size of model.
HEAD_DIM, OTHER_HEAD_DIM = 64, {4096: 128}


def convert(state):
    """
    Translate the parameters of a checkpoint.

    Parameters
    ----------
    state : dict of str to `~torch.Tensor`
        The parameters by the names of the file.

    Returns
    -------
    spec : dict
        Arguments of `~astrodino_seg.models.vit.VisionTransformer`.
    state : dict of str to `~torch.Tensor`
        The parameters in float32, named as there.
    family : str
        ``'dino'``, ``'dinov2'``, ``'dinov3'`` or ``'astroclip'``.

    Raises
    ------
    ModelFileError
        If this is no Vision Transformer of a known layout.
    """
    keys_biased = not any(key.endswith('.bias_mask') for key in state)
    # a copy, for the file may be mapped to memory
    state = {key: value.to(torch.float32, copy=True)
             for key, value in _rename(state).items()}
    for key in ('cls_token', 'patch_embed.proj.weight',
                'blocks.0.attn.qkv.weight', 'blocks.0.mlp.fc2.weight'):
        if key not in state:
            msg = (f'not a Vision Transformer of a known layout: no '
                   f'{key!r}; it has {_some(state)}')
            raise ModelFileError(msg)
    _join(state, keys_biased)
    spec = _spec(state)
    return spec, state, _family(spec)


def _rename(state):
    """The state by our names, without the parameters that are not used."""
    out = {}
    for key, value in state.items():
        name = key
        for prefix in PREFIXES:
            if re.match('|'.join(UNUSED), name):
                break
            name = name.removeprefix(prefix)
        if re.match('|'.join(UNUSED), name):
            continue
        for pattern, replacement in RENAMED.items():
            name = re.sub(pattern, replacement, name)
        if name in out:
            msg = f'{key!r} is one of two parameters that mean {name!r}'
            raise ModelFileError(msg)
        out[name] = value
    return out


def _join(state, keys_biased):
    """Bring to our form, in place, what is stored in another one."""
    for key in [k for k in state if k.endswith('.attn.q_bias')]:
        stem = key.removesuffix('q_bias')       # timm's DINOv3: no k_bias
        q, v = state.pop(key), state.pop(f'{stem}v_bias', None)
        if v is not None:
            state[f'{stem}qkv.bias'] = torch.cat([q, torch.zeros_like(q), v])
    for key in [k for k in state if k.endswith('.attn.qkv.bias')]:
        if not keys_biased:
            third = len(state[key]) // 3
            state[key][third:2 * third] = 0
    for key in [k for k in state if '.mlp.fc1_g.' in k]:
        other = key.replace('fc1_g', 'fc1_x')
        if other in state:
            state[key.replace('fc1_g', 'fc1')] = torch.cat(
                [state.pop(key), state.pop(other)])
    pos = state.get('pos_embed')
    if pos is not None and 'reg_token' in state and _side(pos.shape[1] - 1):
        # DINOv2 adds the position of the CLS token before the registers
        state['cls_token'] = state['cls_token'] + pos[:, :1]
        state['pos_embed'] = pos[:, 1:]


def _spec(state):
    """Arguments of our transformer, from the shapes."""
    dim, n_bands, patch = state['patch_embed.proj.weight'].shape[:3]
    blocks = {int(key.split('.')[1]) for key in state
              if re.match(r'blocks\.\d+\.', key)}
    head_dim = OTHER_HEAD_DIM.get(dim, HEAD_DIM)
    if dim % head_dim:
        msg = f'tokens of {dim} numbers are no multiple of {head_dim}'
        raise ModelFileError(msg)
    hidden = state['blocks.0.mlp.fc2.weight'].shape[1]
    gated = ('blocks.0.mlp.fc1.weight' in state and
             len(state['blocks.0.mlp.fc1.weight']) == 2 * hidden)
    registers = state.get('reg_token')
    spec = {'patch_size': patch, 'in_channels': n_bands, 'dim': dim,
            'depth': max(blocks) + 1,
            'n_heads': dim // head_dim,
            'mlp_ratio': hidden / dim, 'mlp': 'swiglu' if gated else 'gelu',
            'n_registers': 0 if registers is None else registers.shape[1],
            'layer_scale': 1.0 if 'blocks.0.ls1.gamma' in state else None,
            'qkv_bias': 'blocks.0.attn.qkv.bias' in state}
    if 'pos_embed' not in state:
        # not merely missing: nobody else has these together
        if patch == 16 and registers is not None and spec['layer_scale']:
            return {**spec, 'pos_embed': 'none', 'rope': 'dinov3',
                    'norm_eps': 1e-5}
        msg = 'missing parameters: pos_embed'
        raise ModelFileError(msg)
    n = state['pos_embed'].shape[1]
    for n_prefix in ((0, 1) if registers is None else
                     (0, 1 + spec['n_registers'])):
        if _side(n - n_prefix):
            return {**spec, 'grid_size': 2 * (_side(n - n_prefix),),
                    'embed_prefix': n_prefix > 0}
    msg = f"'pos_embed' has {n} positions, which are no square grid"
    raise ModelFileError(msg)


def _family(spec):
    """Whose weights these are: what the sizes tell."""
    if spec['patch_size'] == 12:        # nobody else's
        return 'astroclip'
    if 'rope' in spec:
        return 'dinov3'
    return 'dino' if spec['layer_scale'] is None else 'dinov2'


def _side(n):
    """The root of a square number, else 0."""
    return math.isqrt(n) if n > 0 and math.isqrt(n)**2 == n else 0


def _some(state, n=4):
    keys = [repr(key) for key in list(state)[:n]]
    rest = f' and {len(state) - n} more' if len(state) > n else ''
    return ', '.join(keys) + rest if keys else 'no parameters'
