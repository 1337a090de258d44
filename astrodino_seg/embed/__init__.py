# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a network says of images as a whole: vectors, attention, probes.

Names are imported at their first use (PEP 562).
"""

from importlib import import_module

_NAMES = {
    'attention': ['AttentionMaps', 'attention_maps', 'rollout', 'top_mass'],
    'cutout': ['cutouts', 'label_cutouts'],
    'dense': ['SegmentationScore', 'linear_segmentation', 'patch_maps',
              'pca_rgb'],
    'embedding': ['embed', 'embedding_table'],
    'networks': ['evaluate_network'],
    'probe': ['ProbeResult', 'evaluate', 'run_study'],
    'search': ['anomaly_scores', 'plot_neighbours', 'similar'],
    'vectors': ['read_embeddings', 'write_embeddings'],
}
_HOME = {name: home for home, names in _NAMES.items() for name in names}

__all__ = [*_HOME]


def __getattr__(name):
    if name not in _HOME:
        msg = f'module {__name__!r} has no attribute {name!r}'
        raise AttributeError(msg)
    return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
