# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Write the tables of ingredients that ``simulate.rst`` includes.

    python docs/training/simulate/ingredients.py
"""

from pathlib import Path

from astrodino_seg.simulate.scene import CONDITIONS, CONTENT

__all__ = ['tables']


def tables():
    """The text of ``ingredients.txt``."""
    lines = ['.. made by ingredients.py of the tables in',
             '   astrodino_seg/data/ingredients.toml']
    for title, function, known in (
            ('of a scene', 'make_scene', CONTENT),
            ('of an observation', 'observe', CONDITIONS)):
        lines += ['', f'Ingredients {title} (``rates`` of ``{function}``):',
                  '', '.. list-table::', '   :header-rows: 1',
                  '   :widths: 20 10 70', '', '   * - name', '     - rate',
                  '     - what it is, and what the rate counts']
        for name, rate in known.items():
            lines += [f'   * - ``{name}``', f'     - {rate.value:g}',
                      f'     - {rate.what}']
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    Path(__file__).with_name('ingredients.txt').write_text(tables())
