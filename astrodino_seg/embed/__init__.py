# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a network says of images as a whole: vectors, attention, probes.

Names are imported at their first use (PEP 562).
"""

from astrodino_seg.lazy import attach

_HOME = {
    'anomaly_scores': 'search',
    'attention_maps': 'attention',
    'cutouts': 'cutout',
    'embed': 'embedding',
    'embedding_table': 'embedding',
    'evaluate': 'probe',
    'evaluate_network': 'networks',
    'label_cutouts': 'cutout',
    'linear_segmentation': 'dense',
    'patch_maps': 'dense',
    'pca_rgb': 'dense',
    'read_embeddings': 'vectors',
    'run_study': 'probe',
    'similar': 'search',
    'write_embeddings': 'vectors',
}

__all__ = [*_HOME]
__getattr__, __dir__ = attach(__name__, _HOME)
