# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Configuration of Sphinx.
"""

import os

from astrodino_seg import __version__

project = 'astrodino_seg'
author = 'The astrodino_seg developers'
copyright = f'2026, {author}'  # noqa: A001
version = release = __version__

extensions = [
    'numpydoc',
    'sphinx.ext.autodoc',
    'sphinx.ext.intersphinx',
]
default_role = 'py:obj'
exclude_patterns = ['_build']
html_theme = 'pydata_sphinx_theme'
html_theme_options = {'navigation_with_keys': False}
html_title = f'{project} {version}'

autodoc_member_order = 'bysource'
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

intersphinx_mapping = {
    'astropy': ('https://docs.astropy.org/en/stable/', None),
    'numpy': ('https://numpy.org/doc/stable/', None),
    'photutils': ('https://photutils.readthedocs.io/en/stable/', None),
    'python': ('https://docs.python.org/3/', None),
    'torch': ('https://docs.pytorch.org/docs/stable/', None),
}
if os.environ.get('DOCS_OFFLINE'):  # to build without a network
    intersphinx_mapping = {}


def skip_member(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple; its docstring has them."""
    if (getattr(obj, '__doc__', None) or '').startswith('Alias for field'):
        return True
    return None


def setup(app):
    app.connect('autodoc-skip-member', skip_member)
