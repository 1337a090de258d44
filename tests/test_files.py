# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for files that appear whole or not at all, of one run at a time.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from astrodino_seg.cli import main
from astrodino_seg.errors import BusyError
from astrodino_seg.files import all_or_none, finish_set, locked, whole_or_not
from astrodino_seg.image import as_image, write_image, write_maps, write_plane


def in_a_process(code, *arguments):
    """A process that says when it is so far, and then waits to be killed."""
    child = subprocess.Popen([sys.executable, '-c', code, *arguments],
                             stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == 'now\n'
    return child


def kill(child):
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()


HOLD = """
import sys, time
from astrodino_seg.files import locked
with locked(sys.argv[1]):
    print('now', flush=True)
    time.sleep(600)
"""
#: A move that stops when it has been done so often.
STOP = """
import sys, time
from pathlib import Path
from astrodino_seg.files import all_or_none
folder, n = Path(sys.argv[1]), int(sys.argv[2])
replace, done = Path.replace, []
def stop(*args):
    if len(done) == n:
        print('now', flush=True)
        time.sleep(600)
    done.append(args)
    return replace(*args)
Path.replace = stop
with all_or_none(folder / 'x', {k: folder / k for k in 'abc'}) as parts:
    for part in parts.values():
        part.write_text('1')
    if n < 0:
        print('now', flush=True)
        time.sleep(600)
"""


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_lock_is_for_one(tmp_path):
    path = tmp_path / 'x'
    child = in_a_process(HOLD, str(path))
    try:
        begin = time.monotonic()
        with pytest.raises(BusyError, match='being written by another'), (
                locked(path)):
            pass
        with pytest.raises(OSError, match="x'"), locked(path, wait=0.2):
            pass
        assert time.monotonic() - begin < 10
        with locked(tmp_path / 'y'):        # others are free
            pass
    finally:
        kill(child)
    with locked(path):      # the lock of a process that was killed is not one
        pass
    assert names_in(tmp_path) == set()


def test_whole_or_not(tmp_path):
    path = tmp_path / 'x.txt'

    def fill_the_disk():
        with whole_or_not(path) as part:
            part.write_text('2')
            raise OSError('disk full')

    with whole_or_not(path) as part:
        assert part.suffix == '.txt'
        part.write_text('1')
        assert not path.exists()
    with pytest.raises(OSError, match='disk full'):
        fill_the_disk()
    assert path.read_text() == '1'
    assert names_in(tmp_path) == {'x.txt'}


def test_what_was_killed_is_cleared_away(tmp_path):
    child = in_a_process("""
import sys, time
from astrodino_seg.files import whole_or_not
with whole_or_not(sys.argv[1]) as part:
    part.write_text('half')
    print('now', flush=True)
    time.sleep(600)
""", str(tmp_path / 'x.txt'))
    kill(child)
    assert not any(not name.startswith('.') for name in names_in(tmp_path))
    with whole_or_not(tmp_path / 'x.txt') as part:
        part.write_text('1')
    assert names_in(tmp_path) == {'x.txt'}


def test_all_or_none(tmp_path):
    paths = {'a': tmp_path / 'a', 'b': tmp_path / 'b'}

    def fill_the_disk():
        with all_or_none(tmp_path / 'x', paths) as parts:
            parts['a'].write_text('1')
            raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        fill_the_disk()
    assert names_in(tmp_path) == set()
    with all_or_none(tmp_path / 'x', paths) as parts:
        for part in parts.values():
            part.write_text('2')
    assert names_in(tmp_path) == {'a', 'b'}


@pytest.mark.parametrize('n_moved', [-1, 0, 1, 2])
def test_killed_set_is_none_or_all(tmp_path, n_moved):
    (tmp_path / 'a').write_text('0')
    child = in_a_process(STOP, str(tmp_path), str(n_moved))
    kill(child)
    shown = {name for name in names_in(tmp_path) if name[0] != '.'}
    assert len(shown) == (1, 1, 1, 2)[n_moved + 1]
    finished = finish_set(tmp_path / 'x')
    if n_moved < 0:         # it was not all there
        assert finished == []
        assert names_in(tmp_path) == {'a'}
        assert (tmp_path / 'a').read_text() == '0'
    else:
        assert finished == [tmp_path / name for name in 'abc']
        assert names_in(tmp_path) == {'a', 'b', 'c'}
        assert {(tmp_path / name).read_text() for name in 'abc'} == {'1'}
    assert finish_set(tmp_path / 'x') == []


def test_products_of_a_killed_run_need_no_overwrite(tmp_path, capsys,
                                                    monkeypatch):
    # killed between two moves, which is an exception that nobody handles
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(1, 64, 64)).astype(np.float32)
    y, x = np.mgrid[:64, :64]
    cube += 30 * np.exp(-((x - 30)**2 + (y - 33)**2) / 20)
    write_image(tmp_path / 'in.fits', as_image(cube, bands=['r']))
    command = ['segment', str(tmp_path / 'in.fits'), '-q', '--no-png', '-o',
               str(tmp_path / 'p')]
    replace = Path.replace

    def stop(path, target):
        if path.name == 'p.reg' and path.parent.name == '.p.set':
            raise SystemExit
        return replace(path, target)

    monkeypatch.setattr(Path, 'replace', stop)
    with pytest.raises(SystemExit):
        main(command)
    monkeypatch.undo()
    assert (tmp_path / 'p_segm.fits').exists()
    assert not (tmp_path / 'p.reg').exists()
    assert main(command) == 0
    assert names_in(tmp_path) == {'in.fits', 'p_segm.fits',
                                  'p_catalog.ecsv', 'p.reg'}
    assert main(command) == 1       # now it is a set like any other
    assert 'give --overwrite' in capsys.readouterr().err
    child = in_a_process(HOLD, str(tmp_path / 'p'))
    try:
        assert main([*command, '--overwrite']) == 1
        assert 'being written by another process' in capsys.readouterr().err
    finally:
        kill(child)
    assert main([*command, '--overwrite']) == 0


def write_them(folder):
    image = as_image(np.arange(24.).reshape(1, 4, 6), bands=['r'])
    return {'plane': lambda path: write_plane(path, image.cube),
            'image': lambda path: write_image(path, image),
            'maps': lambda path: write_maps(path, {'M': image.cube}, image)}


@pytest.mark.parametrize('kind', ['plane', 'image', 'maps'])
def test_planes_are_whole_or_not(tmp_path, kind, monkeypatch):
    write = write_them(tmp_path)[kind]
    path = tmp_path / 'x.fits'
    write(path)
    content = path.read_bytes()
    with pytest.raises(FileExistsError, match='x.fits'):
        write(path)
    assert path.read_bytes() == content
    with pytest.raises(FileNotFoundError, match='no such directory'):
        write(tmp_path / 'no' / 'x.fits')
    assert names_in(tmp_path) == {'x.fits'}
