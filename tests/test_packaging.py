# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the package as a whole: its face, its floors and its README.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import astrodino_seg

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'astrodino_seg'
NAME = 'astrodino_seg'

# ------------------------------------------------------------- floors
# Who may import whom is a contract of import-linter in pyproject.toml.

# where torch may be imported at the head; the rest stay quick to import
TORCH = 'models predict embed train segmenter cli'

# never imported at the head of a module: optional, slow, or liable to fail
LAZY = {'dask', 'datasets', 'galsim', 'h5py', 'lightning_fabric', 'matplotlib',
        'napari', 'pyarrow', 'pydantic', 'sep', 'sklearn', 'timm',
        'torchvision', 'urllib3'}

# packages that few modules know, anywhere in them
ONLY = {
    'astropy.io.fits': 'image',
    'dask': 'blocks',
    'safetensors': 'models simulate',
    'matplotlib': 'plotting cli',
}


def allowed(module, words):
    """Whether a module is, or is in, one of a line of the tables."""
    return any(is_of(module, word) for word in words.split())


def modules():
    """Return ``{dotted name within the package: path}``."""
    out = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        if parts[-1] == '__init__' and len(parts) > 1:
            parts = parts[:-1]
        out['.'.join(parts)] = path
    return out


MODULES = modules()


def is_type_checking(node):
    return isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.unparse(
        node.test)


def imports(path):
    """
    Yield ``(absolute dotted name, whether at the head)`` for each import.

    ``from a import b`` yields ``a.b``, for ``b`` may be a module.
    """
    def walk(node, at_head):
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, at_head) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ''
                if child.level:
                    parts = path.relative_to(ROOT).parts[:-child.level]
                    base = '.'.join([*parts, *base.split('.')]).rstrip('.')
                yield from ((f'{base}.{alias.name}', at_head)
                            for alias in child.names)
            else:
                is_def = isinstance(child, (ast.FunctionDef, ast.Lambda,
                                            ast.AsyncFunctionDef))
                yield from walk(child, at_head and not is_def)

    yield from walk(ast.parse(path.read_text(encoding='utf-8')), True)


def within(name):
    """Return the module of this package that an import names, or `None`."""
    if name.split('.')[0] != NAME:
        return None
    full = name.split('.')[1:]
    for n_parts in range(len(full), 0, -1):  # less functions and classes
        module = '.'.join(full[:n_parts])
        if module in MODULES:
            return module
    # a name of the package's face
    return full[0] if len(full) > 1 else '__init__'


def is_of(name, package):
    return name == package or name.startswith(package + '.')


def test_data_flow_one_way():
    assert lint_imports(str(ROOT / 'pyproject.toml'), no_cache=True,
                        no_logo=True) == 0


@pytest.mark.parametrize('module', MODULES)
def test_other_packages(module):
    for name, at_head in imports(MODULES[module]):
        assert not (at_head and name.split('.')[0] in LAZY), (
            f'{module} imports {name} at its head')
        assert not (at_head and is_of(name, 'torch')) or allowed(
            module, TORCH), f'{module} imports torch at its head'
        for package, homes in ONLY.items():
            assert not is_of(name, package) or allowed(module, homes), (
                f'{module} may not import {name}')


def test_no_import_circles():
    graph = {module: {within(name) for name, at_head in imports(path)
                      if at_head} - {None, module}
             for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        pytest.fail('import circle: ' + ' <- '.join(err.args[1]))


def test_imports_are_read(tmp_path):
    # the reader of imports that the tests above rely on
    path = PACKAGE / 'made_up' / 'one.py'
    source = tmp_path / 'one.py'
    source.write_text('import a.b\nfrom . import two\nfrom ..c import d\n'
                      'def f():\n    from e import g\n'
                      'if TYPE_CHECKING:\n    import h\n'
                      'try:\n    import i\nexcept ImportError:\n    pass\n')

    class Path2(type(path)):
        def read_text(self, encoding=None):
            return source.read_text(encoding=encoding)

    assert list(imports(Path2(path))) == [
        ('a.b', True), (f'{NAME}.made_up.two', True), (f'{NAME}.c.d', True),
        ('e.g', False), ('i', True)]


# --------------------------------------------------------------- face

def test_import_is_light():
    code = ('import sys, astrodino_seg; '
            'print(*(name.split(".")[0] for name in sys.modules))')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                          capture_output=True, text=True)
    heavy = {'torch', 'timm', 'torchvision', 'photutils', 'matplotlib',
             'astropy', 'numpy', 'scipy', 'skimage'}
    assert not heavy & set(done.stdout.split())


def test_segmenter_starts_fast():
    """To find labels takes nothing that only figures and edits need."""
    code = 'import sys, astrodino_seg.segmenter; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True,
                          capture_output=True, text=True)
    heavy = {'matplotlib', 'PIL', 'astropy.visualization', 'timm', 'regions',
             'skimage.segmentation', 'torchvision', 'torch._dynamo',
             'distributed', 'sklearn', 'pandas', 'sympy'}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize('name', astrodino_seg.__all__)
def test_public_names(name):
    assert name in dir(astrodino_seg)
    value = getattr(astrodino_seg, name)
    assert getattr(value, '__name__', name) == name


def test_run_as_a_module():
    done = subprocess.run([sys.executable, '-m', NAME, '--version'], cwd=ROOT,
                          check=True, capture_output=True, text=True)
    assert done.stdout == f'astrodino {astrodino_seg.__version__}\n'


def test_unknown_name():
    with pytest.raises(AttributeError, match='attribute SourceFinder'):
        astrodino_seg.SourceFinder  # noqa: B018


# -------------------------------------------- README, .ci and pyproject

@pytest.fixture(scope='module')
def readme():
    return (ROOT / 'README.rst').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def project():
    with (ROOT / 'pyproject.toml').open('rb') as file:
        return tomllib.load(file)['project']


def commands(readme):
    return re.findall(r'^ +(python -m venv .*)$', readme, flags=re.M)


def test_readme_commands(readme, project):
    demo, test = commands(readme)
    assert demo.endswith('.venv/bin/astrodino demo')
    assert test.endswith('.venv/bin/python -m pytest -n auto')
    for command in (demo, test):
        extra, = re.findall(r'pip install -e "\.\[(\w+)\]"', command)
        assert extra in project['optional-dependencies']


def test_ci_runs_the_readme_command(readme):
    path = ROOT / '.ci' / 'run'
    assert commands(readme)[1] in path.read_text().splitlines()
    assert os.access(path, os.X_OK)


def test_readme_example(readme):
    block, = re.findall(r'code-block:: python\n\n((?: {4}.*\n|\n)+)', readme)
    tree = ast.parse(re.sub(r'^ {4}', '', block, flags=re.M))
    names = {alias.name for node in ast.walk(tree)
             if isinstance(node, ast.ImportFrom) and node.module == NAME
             for alias in node.names}
    assert names == {'DinoSegmenter'}


def test_readme_extras(readme, project):
    named = set(re.findall(r'``(\w+)``', readme.split('The extras are')[1]
                           .split('Try it')[0]))
    assert named == set(project['optional-dependencies'])


def test_oldest_packages_are_tested(project):
    """Each has a lower bound, and tox.ini has just that version of it."""
    tox = (ROOT / 'tox.ini').read_text().split('[testenv:oldestdeps]')[1]
    pinned = dict(re.findall(r'^ {4}([\w-]+)==([\d.]+?)(?:\.\*)?$', tox, re.M))
    extras = project['optional-dependencies']
    bounds = dict(re.findall(r'^([\w-]+)>=([\d.]+)$', '\n'.join(
        [*project['dependencies'], *extras['plot']]), re.M))
    assert len(bounds) == len(project['dependencies']) + 1
    assert pinned == bounds


def test_console_script(project):
    module, function = project['scripts']['astrodino'].split(':')
    assert callable(getattr(import_module(module), function))


def test_optional_packages_have_an_extra(project):
    # the extra that ``require`` names in its message exists
    extras = project['optional-dependencies']
    calls = [node for path in MODULES.values()
             for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
             if isinstance(node, ast.Call)
             and getattr(node.func, 'id', None) == 'require']
    for call in calls:
        words = call.args[1:] + [word.value for word in call.keywords]
        for word in words:
            if isinstance(word, ast.Constant) and word.value is not None:
                assert word.value in extras, ast.unparse(call)
