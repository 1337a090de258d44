# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for the vectors module.
"""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table
from numpy.testing import assert_array_equal

from astrodino_seg.embed import read_embeddings
from astrodino_seg.embed.vectors import (
    RowStore,
    check_path,
    vectors_of,
    write_embeddings,
)

DTYPE = [('vector', '<f4', (3,)), ('flags', '<i4')]


def make_table():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 6)).astype(np.float32)
    vectors[2] = np.nan
    table = QTable({'id': ['a', 'bc', 'd', 'e'], 'ra': [1, 2, 3, 4.5] * u.deg,
                    'flags': np.array([0, 1, 2, 0], np.int32),
                    'embedding': vectors})
    table.meta.update(BACKBONE='toy', WHAT='cls', WEIGHTS='ab' * 32,
                      PLANES='x' * 130)
    return table


@pytest.mark.parametrize('ending', ['.fits', '.parquet'])
def test_round_trip(tmp_path, ending):
    if ending == '.parquet':
        pytest.importorskip('pyarrow')
    table, path = make_table(), tmp_path / f'v{ending}'
    write_embeddings(table, path)
    again = read_embeddings(path)
    assert again['embedding'].dtype == np.float32
    assert again['embedding'].dtype.isnative
    for name in table.colnames:
        assert_array_equal(again[name], table[name])
    assert again['ra'].unit == u.deg
    assert again['id'].dtype.kind == 'U'
    assert {k: again.meta[k] for k in table.meta} == table.meta
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(FileExistsError, match='overwrite=True replaces it'):
        write_embeddings(table, path)
    write_embeddings(table[:2], path, overwrite=True)
    assert len(read_embeddings(path)) == 2


def test_failed_write_leaves_nothing(tmp_path):
    table = make_table()
    table['bad'] = [{}, {}, {}, {}]
    (tmp_path / 'v.fits').write_text('old')
    with pytest.raises((TypeError, ValueError, AttributeError)):
        write_embeddings(table, tmp_path / 'v.fits', overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ['v.fits']
    assert (tmp_path / 'v.fits').read_text() == 'old'


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match='must end in .fits or .parquet'):
        check_path('table.csv')
    with pytest.raises(FileNotFoundError, match='no such directory'):
        check_path(tmp_path / 'no' / 'v.fits')
    with pytest.raises(FileNotFoundError, match='no such file'):
        read_embeddings(tmp_path / 'v.fits')
    (tmp_path / 'v.fits').write_text('<html>404</html>')
    with pytest.raises(ValueError, match='cannot be read as a table'):
        read_embeddings(tmp_path / 'v.fits')
    Table({'a': [1]}).write(tmp_path / 'w.fits')
    with pytest.raises(ValueError, match='no vectors in a column embedding'):
        read_embeddings(tmp_path / 'w.fits')


def test_vectors_of():
    vectors, good = vectors_of(make_table())
    assert vectors.shape == (4, 6)
    assert good.tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match=r'the shape \(n, d\)'):
        vectors_of(np.zeros(3))
    for empty in (np.zeros((0, 3)), make_table()[:0]):
        with pytest.raises(ValueError, match='no vectors: the table is empty'):
            vectors_of(empty)
    with pytest.raises(ValueError, match='no column embedding'):
        vectors_of(Table({'a': [1]}))


# --------------------------------------------------------- rows that stay

def make_rows(n):
    rows = np.zeros(n, DTYPE)
    rows['vector'] = np.arange(3 * n).reshape(n, 3)
    return rows


@pytest.fixture
def store(tmp_path):
    return RowStore(tmp_path / 'v.part', DTYPE, {'size': 8, 'what': 'cls'})


def test_rows(store):
    rows = make_rows(6)
    assert store.resume(2) == 0
    assert store.resume(2) == 0
    store.append(rows[:4])
    again = RowStore(store.path, DTYPE, {'what': 'cls', 'size': 8})
    assert again.resume(2) == 4
    again.append(rows[4:])
    assert_array_equal(again.read(), rows)
    again.remove()
    assert not store.path.exists()


@pytest.mark.parametrize(('n_lost', 'n_left'), [(0, 6), (1, 4), (17, 4),
                                                (32, 4), (33, 2), (64, 2),
                                                (65, 0), (96, 0)])
def test_cut_off(store, n_lost, n_left):
    # a row has 16 bytes; whole blocks of two are left
    store.resume(2)
    store.append(make_rows(6))
    size = store.path.stat().st_size
    with open(store.path, 'r+b') as file:
        file.truncate(size - n_lost)
    assert store.resume(2) == n_left
    assert_array_equal(store.read(), make_rows(6)[:n_left])


def test_cut_off_in_its_head(store):
    store.resume()
    head = store.path.read_bytes()
    for n in (0, 1, len(head) - 1):
        store.path.write_bytes(head[:n])
        assert store.resume() == 0
        assert store.path.read_bytes() == head


def test_of_another_run(store):
    store.resume()
    other = RowStore(store.path, DTYPE, {'size': 9, 'what': 'cls'})
    with pytest.raises(ValueError, match='another run; .* size was 8, is 9'):
        other.resume()
    store.path.write_bytes(b'SIMPLE  =\n')
    with pytest.raises(ValueError, match='not a file of rows'):
        store.resume()
    assert store.path.read_bytes() == b'SIMPLE  =\n'
