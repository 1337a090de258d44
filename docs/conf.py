# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Configuration of Sphinx.
"""

import logging
import sys
from pathlib import Path

from astrodino_seg import __version__

sys.path.insert(0, str(Path(__file__).parent))      # pictures.py

project = 'astrodino_seg'
author = 'The astrodino_seg developers'
copyright = f'2026, {author}'  # noqa: A001
version = release = __version__

extensions = [
    'numpydoc',
    'sphinx.ext.autodoc',
    'sphinx.ext.doctest',
    'sphinx.ext.intersphinx',
    'sphinx_design',
    'sphinx_gallery.gen_gallery',
]
default_role = 'py:obj'
exclude_patterns = ['_build', 'sg_execution_times.rst',
                    'gallery/sg_execution_times.rst']
html_theme = 'pydata_sphinx_theme'
html_theme_options = {'navigation_with_keys': False}
html_static_path = ['_static']
html_css_files = ['site.css']
html_title = f'{project} {version}'

autodoc_member_order = 'bysource'
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

intersphinx_mapping = {
    'astropy': ('https://docs.astropy.org/en/stable/', None),
    'mocpy': ('https://cds-astro.github.io/mocpy/', None),
    'numpy': ('https://numpy.org/doc/stable/', None),
    'photutils': ('https://photutils.readthedocs.io/en/stable/', None),
    'python': ('https://docs.python.org/3/', None),
    'regions': ('https://astropy-regions.readthedocs.io/en/stable/', None),
    'torch': ('https://docs.pytorch.org/docs/stable/', None),
}
intersphinx_timeout = 5

linkcheck_timeout = 30
linkcheck_retries = 3
linkcheck_ignore = [
    # these publishers refuse programs (403): University of Chicago, IOP,
    # OUP, IEEE, IMS
    r'https://doi\.org/10\.(1086|1088|1093|1109|1214)/',
]
linkcheck_anchors_ignore_for_url = [
    r'https://github\.com/',     # a script makes them
]

sphinx_gallery_conf = {
    'examples_dirs': '../examples',
    'gallery_dirs': 'gallery',
    'within_subsection_order': 'FileNameSortKey',
    'image_scrapers': ('pictures.scrape',),
    'reset_modules': (),
    'download_all_examples': False,
    'show_signature': False,
    'abort_on_example_error': True,
}


def skip_member(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple; its docstring has them."""
    if (getattr(obj, '__doc__', None) or '').startswith('Alias for field'):
        return True
    return None


def is_of_network(record):
    """Whether a message says that the docs of other packages are away."""
    return str(record.msg).startswith('failed to reach any of the inventor')


def setup(app):
    # their names are then left as they are, which is no reason to fail
    logging.getLogger('sphinx.sphinx.ext.intersphinx').addFilter(
        lambda record: not is_of_network(record))
    app.connect('autodoc-skip-member', skip_member)
