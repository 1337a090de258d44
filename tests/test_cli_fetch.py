# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests for ``astrodino fetch``.
"""

import pytest
from astropy.table import Table
from cutout_service import CutoutServer
from numpy.testing import assert_allclose

from astrodino_seg.cli import main
from astrodino_seg.datasets import FolderImages, legacy
from astrodino_seg.train import pretrain_from_config

pytest.importorskip('urllib3')


@pytest.fixture
def server(monkeypatch):
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    with CutoutServer() as server:
        init = legacy.LegacyCutouts.__init__
        monkeypatch.setitem(init.__kwdefaults__, 'service', server.url)
        yield server


@pytest.mark.parametrize('words', [
    ['150.1', '-2.25'], ['150.1 -2.25'], ['10h00m24s -02d15m00s'],
    ['10h00m24s', '--', '-2d15m']])
def test_one_position(server, tmp_path, capsys, words):
    status = main(['fetch', '-o', str(tmp_path / 'out'), '--size', '24', '-q',
                   '--bands', 'g,z', *words])
    assert status == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == '1 of 1 cutouts'
    assert err == ''
    path, = (tmp_path / 'out').glob('*.fits')
    assert path.name == 'ls-dr10_150.1000000-2.2500000_24x0.262_gz_ivar.fits'
    images = FolderImages(tmp_path / 'out' / 'cutouts.ecsv')
    assert images[0].bands == ('g', 'z')
    assert_allclose(images[0].wcs.wcs.crval, (150.1, -2.25))


def test_table(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Table({'RA': [1.0, 2.0, 3.0], 'DEC': [1.0, 89.0, 3.0],
           'label': [5, 6, 7]}).write('list.csv')
    command = ['fetch', 'list.csv', '-o', 'out', '--size', '24',
               '--no-ivar', '--pixel-scale', '0.5', '--layer', 'ls-dr9',
               '--bands', 'grz']
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == '2 of 3 cutouts'
    assert 'astrodino: warning: cutouts left out: 1,' in err
    assert '3/3' in err
    table = Table.read('out/cutouts.ecsv')
    assert table['ok'].tolist() == [True, False, True]
    assert table['label'].tolist() == [5, 6, 7]
    assert 'status 500' in table['error'][1]
    assert main([*command, '-q']) == 1
    assert len(server.requests) == 4
    asked = {path.split('?')[1].partition('&layer')[2]
             for path, _ in server.requests}
    assert asked == {'=ls-dr9&pixscale=0.5&size=24&bands=grz'}


def test_for_pretraining(server, tmp_path):
    """What was fetched is what a recipe reads, with the table's path."""
    pytest.importorskip('lightning_fabric')
    Table({'ra': [1.0, 2.0, 3.0], 'dec': [1.0, 2.0, 3.0]}).write(
        tmp_path / 'list.csv')
    out = tmp_path / 'out'
    assert main(['fetch', str(tmp_path / 'list.csv'), '-o', str(out),
                 '--size', '48', '--bands', 'grz', '-q']) == 0
    encoder = pretrain_from_config({
        'model': {'vit': {'patch_size': 8, 'dim': 24, 'depth': 1}},
        'images': [{'kind': 'folder', 'path': str(out / 'cutouts.ecsv')}],
        'views': {'global_size': 32, 'local_size': 16, 'n_local': 1},
        'objective': {'n_prototypes': 8, 'hidden': 8, 'bottleneck': 4},
        'fit': {'n_steps': 1, 'batch_size': 2, 'n_workers': 0,
                'device': 'cpu'}}, tmp_path / 'run', progress=False)
    assert encoder.provenance['source']['n_images'] == 3


@pytest.mark.parametrize(('words', 'match'), [
    (['nowhere.csv'], "'nowhere.csv' is no table and no position"),
    (['1', '2', '3'], "'1 2 3' is no table and no position"),
    (['1', '95'], "'1 95' is no table and no position"),
    (['1', '2', '--size', '0'], 'size must be 2 to 3000 pixels, got 0')])
def test_user_errors(server, tmp_path, monkeypatch, capsys, words, match):
    monkeypatch.chdir(tmp_path)
    assert main(['fetch', *words]) == 1
    assert match in capsys.readouterr().err
    assert server.requests == []
