# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
What a network says of images as a whole: vectors, attention, probes.

Names are imported at their first use (PEP 562).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'attention': ['attention_maps'],
    'cutout': ['cutouts', 'label_cutouts'],
    'dense': ['linear_segmentation'],
    'embedding': ['embed', 'embedding_table'],
    'probe': ['evaluate', 'evaluate_network'],
    'vectors': ['anomaly_scores', 'read_embeddings', 'similar']})
