# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Weights of others: DINO, DINOv2, DINOv3 and AstroCLIP. Checkpoints are read
without running any code that they hold, and the names of their parameters
become those of our transformer. Layouts: DINO (Caron et al. 2021,
arXiv:2104.14294), DINOv2 (Oquab et al. 2023, arXiv:2304.07193) with registers
(Darcet et al. 2023, arXiv:2309.16588) and with its blocks in chunks, DINOv3
(Simeoni et al. 2025, arXiv:2508.10104), each as its authors and as ``timm``
have it, and AstroCLIP.
"""

import math
import re
import tomllib
from pathlib import Path
from pickle import UnpicklingError
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.serialization import (
    get_unsafe_globals_in_checkpoint,
    safe_globals,
)

from astrodino_seg.errors import ModelFileError, require
from astrodino_seg.inputs.rules import NanomaggyRGB, Photographic
from astrodino_seg.models.backbone import Backbone
from astrodino_seg.models.load import not_finite
from astrodino_seg.models.vit import VisionTransformer

#: How others name what they have.
NAMES = tomllib.loads((Path(__file__).parents[1] / 'data'
                       / 'foreign.toml').read_text('utf-8'))
UNUSED = '|'.join(NAMES['unused'])
#: Length of a query in DINO, DINOv2 and DINOv3, but for one size of model.
HEAD_DIM, OTHER_HEAD_DIM = 64, {4096: 128}


def from_file(path, key=None, planes=None):
    """The `Backbone` of a file; raises `ModelFileError`."""
    return _build(_read(path, key), planes, path.name)


def from_timm(name, planes=None):
    """A `Backbone` by its name in timm, with the statistics that it states."""
    timm = require('timm')
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as err:    # of any of the libraries that download
        msg = (f'name_or_path: timm cannot provide {name!r} ('
               f'{type(err).__name__}: {" ".join(str(err).split())[:200]}); '
               f'without a network, give the path of a file')
        raise OSError(msg) from err
    config = model.pretrained_cfg
    if planes is None:
        planes = Photographic(tuple(config['mean']), tuple(config['std']))
    return _build(model.state_dict(), planes, name)


def _build(state, planes, name):
    """Our transformer with the parameters of others."""
    spec, state = _convert(state)
    with torch.device('meta'):      # nothing is drawn that is replaced
        vit = VisionTransformer(**spec)
    needed = {k: tuple(v.shape) for k, v in vit.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    wrong = {
        'unknown parameters': sorted(found.keys() - needed),
        'missing parameters': sorted(needed.keys() - found),
        'parameters of a wrong shape': [
            f'{k} {found[k]} and not {needed[k]}' for k in sorted(needed)
            if k in found and found[k] != needed[k]]}
    msg = '; '.join(f'{what}: {", ".join(keys)}'
                    for what, keys in wrong.items() if keys)
    if msg := msg or not_finite(state):
        raise ModelFileError(msg)
    vit.load_state_dict(state, assign=True)
    vit.requires_grad_(True)
    if planes is None:              # patches of 12 pixels are nobody else's
        planes = (NanomaggyRGB() if spec['patch_size'] == 12
                  else Photographic())
    return Backbone(vit, planes, name).eval()


# ------------------------------------------------------------- the file

class _Inert:
    """What is made in place of an object of a foreign class."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


def _read(path, key=None):
    """
    The parameters of a checkpoint by their names, on the CPU. In place of
    other objects (options, whole modules), of whatever class, an empty one is
    made.
    """
    if path.suffix == '.safetensors':
        try:
            return _find(load_file(path), key)
        except (SafetensorError, OSError) as err:
            msg = f'it is not a readable safetensors file: {err}'
            raise ModelFileError(msg) from err
    try:
        zipped = is_zipfile(path)       # since torch 1.6
        if zipped:
            _check_zip(path)
        unsafe = get_unsafe_globals_in_checkpoint(path) if zipped else []
        # one class for each name: torch looks them up by identity
        inert = [(type('Inert', (_Inert,), {}), name) for name in unsafe]
        with safe_globals(inert):
            content = torch.load(path, map_location='cpu', mmap=zipped,
                                 weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, LookupError, TypeError,
            ValueError, AttributeError, MemoryError, BadZipFile) as err:
        if isinstance(err, ModelFileError):
            raise
        # torch's own words here advise to read it unsafely
        reason = ('it is none, or holds code'
                  if isinstance(err, UnpicklingError)
                  else next(iter(str(err).splitlines()), repr(err)))
        msg = f'it cannot be read safely as a checkpoint: {reason}'
        raise ModelFileError(msg) from err
    return _find(content, key)


def _check_zip(path):
    """Raise if entries of an archive become more than the file has bytes."""
    with ZipFile(path) as archive:
        n_bytes = sum(one.file_size for one in archive.infolist())
    if n_bytes > path.stat().st_size:
        msg = (f'its entries are compressed and become {n_bytes} bytes; '
               f'torch.save compresses nothing')
        raise ModelFileError(msg)


def _find(content, key):
    """The parameters within the nested dictionaries of a checkpoint."""
    has = list(content) if isinstance(content, dict) else content
    while isinstance(content, dict):
        inner = [name for name in (key, *NAMES['containers'])
                 if isinstance(content.get(name), dict)]
        state = {k: v for k, v in content.items()
                 if isinstance(v, torch.Tensor)}
        if inner:
            key = None if inner[0] == key else key
            content = content[inner[0]]
        elif state and len(state) == len(content):
            # DINOv2 has student and teacher in one dictionary
            for part in ('teacher', 'student') if key is None else (key,):
                own = {k.removeprefix(f'{part}.'): v for k, v in state.items()
                       if k.startswith(f'{part}.')}
                if own:
                    return own
            if key is None:
                return state
            break
        else:
            break
    msg = (f'no dictionary of parameters in it; looked for '
           f'{", ".join(NAMES["containers"])}' if key is None
           else f'key: there is no {key!r} in it; it has {has}')
    raise ModelFileError(msg)


# --------------------------------------------------------- the parameters

def _convert(state):
    """Arguments of our transformer, and its parameters in float32."""
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
    return _spec(state), state


def _rename(state):
    """The state by our names, without the parameters that are not used."""
    out = {}
    for key, value in state.items():
        name = key.replace('_orig_mod.', '')        # of torch.compile
        for prefix in NAMES['prefixes']:
            if re.match(UNUSED, name):
                break
            name = name.removeprefix(prefix)
        if re.match(UNUSED, name):
            continue
        for pattern, replacement in NAMES['renamed'].items():
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


def _side(n):
    """The root of a square number, else 0."""
    return math.isqrt(n) if n > 0 and math.isqrt(n)**2 == n else 0


def _some(state, n=4):
    keys = [repr(key) for key in list(state)[:n]]
    rest = f' and {len(state) - n} more' if len(state) > n else ''
    return ', '.join(keys) + rest if keys else 'no parameters'
