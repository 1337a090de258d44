# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for limits on files from outside: what is small and says that it is
large, or leads nowhere, is refused before memory or time is taken.
"""

import bz2
import gzip
import json
import lzma
import resource
import subprocess
import sys
import tracemalloc
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from safetensors.torch import save_file

from astrodino_seg import ModelFileError, as_image, load_model
from astrodino_seg.datasets.tables import read_table
from astrodino_seg.errors import TooLargeError
from astrodino_seg.models import load_backbone

MB = 2**20


def bomb(n_bytes=64 * MB):
    """The content of a FITS image of zeros."""
    header = fits.Header({'SIMPLE': True, 'BITPIX': 8, 'NAXIS': 2,
                          'NAXIS1': 4096, 'NAXIS2': n_bytes // 4096})
    return header.tostring().encode() + bytes(n_bytes)


@pytest.mark.parametrize(('module', 'ending'), [
    (gzip, '.gz'), (bz2, '.bz2'), (lzma, '.xz')])
@pytest.mark.parametrize('read', [as_image, read_table])
def test_compressed_file(tmp_path, monkeypatch, module, ending, read):
    path = tmp_path / f'x.fits{ending}'
    path.write_bytes(module.compress(bomb()))
    assert path.stat().st_size < MB
    monkeypatch.setenv('ASTRODINO_MAX_BYTES', str(8 * MB))
    tracemalloc.start()
    with pytest.raises(TooLargeError, match='set ASTRODINO_MAX_BYTES'):
        read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 40 * MB


def test_limit_is_adjustable(tmp_path, monkeypatch):
    path = tmp_path / 'x.fits.gz'
    path.write_bytes(gzip.compress(bomb(MB)))
    monkeypatch.setenv('ASTRODINO_MAX_BYTES', '1e5')
    with pytest.raises(ValueError, match=r'x.fits.gz.* becomes 0.0 GiB'):
        as_image(path)
    monkeypatch.setenv('ASTRODINO_MAX_BYTES', '2e6')
    assert as_image(path).shape == (256, 4096)
    monkeypatch.setenv('ASTRODINO_MAX_BYTES', 'much')
    with pytest.raises(ValueError, match="must be a number of bytes.*'much'"):
        as_image(path)


def test_compressed_image(tmp_path, monkeypatch):
    monkeypatch.setenv('ASTRODINO_MAX_BYTES', str(8 * MB))
    path = tmp_path / 'x.fits'
    hdu = fits.CompImageHDU(np.zeros((1024, 4096), np.int32),
                            compression_type='RICE_1')
    hdu.writeto(path)
    with pytest.raises(TooLargeError, match='the image in'):
        as_image(path)


def test_numpy_files(tmp_path, monkeypatch):
    monkeypatch.setenv('ASTRODINO_MAX_BYTES', str(8 * MB))
    np.savez_compressed(tmp_path / 'x.npz', r=np.zeros((1024, 4096)))
    with pytest.raises(TooLargeError, match='x.npz'):
        as_image(tmp_path / 'x.npz')
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {
        'descr': '<f8', 'fortran_order': False, 'shape': (10**6, 10**6)})
    (tmp_path / 'x.npy').write_bytes(header.getvalue() + bytes(8000))
    with pytest.raises(ValueError, match='cannot be read as a file of numpy'):
        as_image(tmp_path / 'x.npy')


HEADERS = [{'GCOUNT': -1}, {'PCOUNT': -10**6}, {'NAXIS1': -8},
           {'NAXIS1': 2**62, 'NAXIS2': 2**62}, {'NAXIS': 999},
           {'GCOUNT': 10**18}, {'BITPIX': 7}, {'NAXIS': -1},
           {'PCOUNT': 10**15}]


CODE = """
import resource, sys, time, warnings
from astrodino_seg import as_image
from astrodino_seg.datasets.tables import read_table
warnings.simplefilter('ignore')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    for read in as_image, read_table:
        begin = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(begin) + 60, -1))
        try:
            read(path)
        except ValueError:
            pass
        assert time.process_time() < begin + 10, path
now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert now - before < 50_000, now - before      # kB
"""


def change_header(content, start, change):
    """The bytes of a file, the header at some byte with other values."""
    cards = [content[k:k + 80] for k in range(start, start + 2880, 80)]
    end = next(k for k, card in enumerate(cards) if card[:3] == b'END')
    for key, value in change.items():
        card = f'{key:8}= {value:>20}'.ljust(80).encode()
        at = [k for k, one in enumerate(cards)
              if one[:8].strip() == key.encode()]
        if at:
            cards[at[0]] = card
        else:
            cards.insert(end, card)
            del cards[-1]
    return content[:start] + b''.join(cards) + content[start + 2880:]


def test_absurd_headers(tmp_path):
    path = tmp_path / 'x.fits'
    image = fits.ImageHDU(np.zeros((40, 40), np.float32))
    fits.HDUList([fits.PrimaryHDU(), image, image]).writeto(path)
    content, paths = path.read_bytes(), []
    for k, change in enumerate(HEADERS):
        for start in (0, 2880):
            paths.append(tmp_path / f'{k}_{start}.fits')
            paths[-1].write_bytes(change_header(content, start, change))
    # in a process of its own, which the system can end
    child = subprocess.run([sys.executable, '-c', CODE, *map(str, paths)],
                           capture_output=True, text=True, timeout=1000)
    assert child.returncode == 0, child.stderr
    with pytest.raises(ValueError, match='data have -[0-9]+ bytes'):
        as_image(paths[1])


def test_checkpoint_that_inflates(tmp_path):
    path = tmp_path / 'x.pth'
    torch.save({'teacher': {'cls_token': torch.zeros(1, 1, 8)}}, path)
    bad = tmp_path / 'bad.pth'
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(
            bad, 'w', zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith('data.pkl'):
                content = content[:2] + b'N0' * (4 * MB) + content[2:]
            new.writestr(name, content)
    assert bad.stat().st_size < MB
    with pytest.raises(ModelFileError, match='torch.save compresses nothing'):
        load_backbone(bad)
    with pytest.raises(ModelFileError, match='not a Vision Transformer'):
        load_backbone(path)         # of a network, but for that


@pytest.mark.parametrize(('part', 'change'), [
    ('vit', {'depth': 10**6}), ('vit', {'dim': 192 * 300}),
    ('vit', {'pos_embed': 'learned', 'grid_size': [10**6, 10**4]}),
    ('vit', {'mlp_ratio': 1e6}), ('vit', {'n_registers': 10**9}),
    ('vit', {'depth': 10**12}), ('head', {'widths': [10**6] * 4}),
    ('head', {'n_embedding': 10**8}), ('decision', {'width': 10**6})])
def test_spec_of_a_larger_network(tmp_path, part, change):
    from astrodino_seg.models.load import read_weights

    _, metadata, tensors = read_weights()
    spec = json.loads(metadata['spec'])
    spec[part] = {**spec[part], **change}
    save_file(tensors, tmp_path / 'x.safetensors',
              {**metadata, 'spec': json.dumps(spec)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError, match='larger than the file'):
        load_model(tmp_path / 'x.safetensors')
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert now - before < 500_000


def test_table_is_read_as_ever(tmp_path):
    Table({'ra': [1.], 'dec': [2.]}).write(tmp_path / 'x.fits')
    content = (tmp_path / 'x.fits').read_bytes()
    (tmp_path / 'y.fits.gz').write_bytes(gzip.compress(content))
    (tmp_path / 'x.csv').write_text('ra,dec\n1,2\n')
    for path in tmp_path.iterdir():
        assert read_table(path)['dec'][0] == 2
