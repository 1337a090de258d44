# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Tests of the HTML page: what is in it, and what it does in a browser.
"""

import base64
import io
import json
import shutil
import time
import zlib
from html.parser import HTMLParser

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image as Picture

from astrodino_seg import DinoSegmenter, as_image
from astrodino_seg.cli import main
from astrodino_seg.datasets import demo_image
from astrodino_seg.plotting import rgb_image
from astrodino_seg.report import write_report

HOSTILE = '</script><script>window.hacked = 1</script><img src=x onerror=a>'


class Page(HTMLParser):
    """The data of a page, its tags, and the addresses that it names."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.addresses, self.data, self.texts = [], [], None, []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs
                           if name in ('src', 'href')]

    def handle_data(self, data):
        if self.tags and self.tags[-1] == (
                'script', {'type': 'application/json', 'id': 'data'}):
            self.data = self.data or json.loads(data)
        self.texts.append(data)

    def labels(self, k):
        return unpacked(self.data, self.data['maps'][k]['labels'])

    def column(self, k, name):
        return next(one for one in self.data['maps'][k]['columns']
                    if one['name'] == name)

    def picture(self):
        content = base64.b64decode(self.data['picture'])
        return np.array(Picture.open(io.BytesIO(content)))[::-1]


def unpacked(data, text):
    content = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(content, '<i4').reshape(data['shape'])[::-1]


@pytest.fixture(scope='module')
def result():
    demo = demo_image()
    ys, xs = slice(90, 186), slice(260, 356)
    return DinoSegmenter().segment(as_image(
        demo.cube[:, ys, xs] * u.nJy, wcs=demo.wcs[ys, xs],
        bands=demo.bands))


def draw(path, labels, table=None, bands='g', **options):
    """A page of labels on a picture that tells pixels apart."""
    ny, nx = labels.shape
    y, x = np.mgrid[:ny, :nx]
    rgb = np.stack([x % 256, y % 256, 0 * x], -1).astype(np.uint8)
    if table is None:
        table = QTable({'label': np.unique(labels[labels > 0])})
    write_report(path, as_image(np.ones((len(bands), ny, nx)), bands=bands),
                 rgb, {'labels': labels}, {'labels': table},
                 **{'title': 'field', **options})
    return Page(path)


# ------------------------------------------------------------ what is in it

def test_maps_table_and_picture(result, tmp_path):
    other = np.where(result.segmentation_image.data > 0, 7, 0)
    path = tmp_path / 'page.html'
    result.report(path, title='<b>field</b>', lines=['made by hand'], others={
        'one': other, 'none': None})
    page = Page(path)
    data = page.data
    assert [one['name'] for one in data['maps']] == [
        'labels', 'fragments', 'one']
    assert data['title'] == '<b>field</b>'
    assert '<b>field</b>' in page.texts             # a text, and not a tag
    assert data['lines'] == ['made by hand']
    assert_array_equal(page.labels(0), result.segmentation_image.data)
    assert_array_equal(page.labels(1), result.fragments.data)
    assert_array_equal(page.labels(2), other)
    assert_array_equal(unpacked(data, data['class_map']), result.class_map)
    assert_array_equal(page.picture(), rgb_image(
        result.image, result.background, result.noise))
    flux = page.column(0, 'flux_r')
    assert flux['unit'] == 'nJy'
    assert_allclose(flux['values'], result.table['flux_r'].value, rtol=1e-6)
    ra = page.column(0, 'sky_centroid.ra')
    assert ra['unit'] == 'deg'
    assert_allclose(ra['values'], result.table['sky_centroid'].ra.deg,
                    rtol=0, atol=1e-8)
    parents = page.column(1, 'parent')['values']
    for piece, parent in zip(page.column(1, 'label')['values'], parents):
        inside = result.segmentation_image.data[page.labels(1) == piece]
        assert set(inside) == {parent}


def test_other_maps_are_measured(result, tmp_path):
    other = np.zeros(result.image.shape, int)
    other[10:20, 30:50] = 4
    result.report(tmp_path / 'page.html', others={'one': other})
    page = Page(tmp_path / 'page.html')
    assert page.column(2, 'label')['values'] == [4]
    assert page.column(2, 'area')['values'] == [200]
    light = (result.image.cube - result.background)[:, 10:20, 30:50]
    for band, plane in zip('griz', light):
        assert_allclose(page.column(2, f'flux_{band}')['values'],
                        plane.sum(dtype=float), rtol=1e-5)


def test_another_shape(result, tmp_path):
    with pytest.raises(ValueError, match=r"others: 'one' .* got \(3, 4\)"):
        result.report(tmp_path / 'page.html', others={'one': np.ones((3, 4))})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_fetched(tmp_path):
    page = draw(tmp_path / 'page.html', np.eye(5, dtype=int))
    assert page.addresses == ['data:,']
    policy = next(attrs['content'] for tag, attrs in page.tags
                  if attrs.get('http-equiv') == 'Content-Security-Policy')
    assert policy.startswith("default-src 'none';")


def test_hostile_names(tmp_path):
    table = QTable({'label': [1], HOSTILE: ['&lt;</script>']})
    page = draw(tmp_path / 'page.html', np.eye(5, dtype=int), table,
                bands=[HOSTILE], title=HOSTILE, lines=[HOSTILE])
    assert [tag for tag, _ in page.tags].count('script') == 2
    assert 'img' not in [tag for tag, _ in page.tags]
    assert page.data['title'] == page.data['bands'][0] == HOSTILE
    assert page.column(0, HOSTILE)['values'] == ['&lt;</script>']


def test_what_is_no_number(tmp_path):
    table = QTable({'label': [1, 2, 3], 'flux_g': [np.nan, np.inf, 2] * u.Jy})
    table['gap'] = MaskedColumn([1, 2, 3], mask=[0, 1, 0])
    page = draw(tmp_path / 'page.html', np.diag([1, 2, 3]), table)
    assert page.column(0, 'flux_g')['values'] == [None, None, 2]
    assert page.column(0, 'gap')['values'] == [1, None, 3]


def test_large_images_are_binned(tmp_path):
    labels = np.zeros((50, 70), int)
    labels[:, 20:60] = 3
    labels[31, 40] = 9                  # one pixel, in the midst of another
    page = draw(tmp_path / 'page.html', labels, max_side=30)
    assert page.data['factor'] == 3     # 70 / 3 is the first below 30
    assert page.data['shape'] == [17, 24]
    shown = page.labels(0)
    assert_array_equal(np.argwhere(shown == 9), [[31 // 3, 40 // 3]])
    # a block shows nothing that is not within
    for (y, x), label in np.ndenumerate(shown):
        assert label in labels[3 * y:3 * y + 3, 3 * x:3 * x + 3]
    assert_array_equal(page.picture()[5, 7, :2], [22, 16])    # the middle
    assert draw(tmp_path / 'page.html', labels, max_side=70).data[
        'factor'] == 1


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demo = demo_image()
    np.save('field.npy', demo.cube[:, 100:164, 270:334])
    assert main(['report', 'field.npy', '-q', '--bands', 'griz',
                 '--finders', 'detect,detect:n_sigma=3']) == 0
    assert 'wrote field.html' in capsys.readouterr().out
    page = Page(tmp_path / 'field.html')
    assert page.data['bands'] == ['g', 'r', 'i', 'z']
    assert [one['name'] for one in page.data['maps']][2:] == [
        'detect', 'detect_n_sigma_3']
    deep, shallow = ((page.labels(k) > 0).sum() for k in (2, 3))
    assert deep > shallow > 0
    assert 'merge=0.22' in ' '.join(page.data['lines'])
    assert main(['report', 'field.npy', '-q']) == 1
    assert 'field.html exists' in capsys.readouterr().err
    np.save('sky.npy', np.random.default_rng(1).normal(size=(64, 64)))
    assert main(['report', 'sky.npy', '-q', '-o', 'none.html',
                 '--n-pixels', '4000']) == 3
    assert not (tmp_path / 'none.html').exists()


# -------------------------------------------------------------- in a browser

FLAGS = ('--headless=new --no-sandbox --disable-gpu --disable-quic '
         '--no-first-run --disable-background-networking '
         '--disable-component-update --disable-sync '
         '--disable-dev-shm-usage --window-size=1200,900')
N, STEP, SIDE = 5000, 14, 1000          # objects; their distance; the image


@pytest.fixture(scope='module')
def driver(tmp_path_factory):
    """Chromium, which writes what it downloads to ``driver.folder``."""
    webdriver = pytest.importorskip('selenium.webdriver')
    chromium = shutil.which('chromium') or shutil.which('google-chrome')
    program = shutil.which('chromedriver')
    if chromium is None or program is None:
        pytest.skip('there is no Chromium with its chromedriver')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    folder = tmp_path_factory.mktemp('downloads')
    options.add_experimental_option('prefs', {
        'download.default_directory': str(folder)})
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options,
                              service=webdriver.ChromeService(program))
    driver.folder = folder
    yield driver
    driver.quit()


@pytest.fixture(scope='module')
def field():
    """Boxes of 2 x 2 to 9 x 9 pixels on a grid, and their table."""
    rng = np.random.default_rng(2)
    labels = np.zeros((SIDE, SIDE), int)
    sides = rng.integers(2, 10, N)
    sides[:5] = 9
    for k, side in enumerate(sides):
        y, x = (k // 71) * STEP + 2, (k % 71) * STEP + 2
        labels[y:y + side, x:x + side] = k + 1
    table = QTable({'label': np.arange(1, N + 1),
                    'class': rng.choice(['star', 'galaxy'], N),
                    'group_confidence': rng.random(N),
                    'area': sides**2 * u.pix**2, HOSTILE: rng.random(N)})
    table['class'] = table['class'].astype('U80')
    table['class'][0] = HOSTILE
    table['flags'] = rng.choice([0, 1, 64], N)
    table.meta['flags'] = 'edge=1, blended=64'
    return labels, table


@pytest.fixture(scope='module')
def file(field, tmp_path_factory):
    labels, table = field
    path = tmp_path_factory.mktemp('page') / 'page.html'
    image = as_image(np.ones((1, SIDE, SIDE)), bands=[HOSTILE])
    rgb = np.full((SIDE, SIDE, 3), 60, np.uint8)
    halves = np.where(labels > 0, labels % 2 + 1, 0)
    write_report(path, image, rgb, {'labels': labels, 'halves': halves}, {
        'labels': table, 'halves': Table({'label': [1, 2]})},
        class_map=np.minimum(labels, 2), title=HOSTILE, edits=True,
        lines=[HOSTILE])
    return path


@pytest.fixture
def browser(driver, file):
    """The page as it opens; at the end nothing was told on the console."""
    driver.get(f'file://{file}')
    wait(lambda: driver.execute_script('return document.body.dataset.ready'))
    yield driver
    assert driver.get_log('browser') == []
    assert driver.execute_script('return window.hacked') is None
    assert driver.execute_script(
        'return performance.getEntriesByType("resource").length') == 0


def wait(what, seconds=60):
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def find(browser, selector):
    return browser.find_element('css selector', selector)


def cells(browser, column):
    """Texts of a column in the rows that are there."""
    return browser.execute_script(
        'return [...document.querySelectorAll("#rows tbody tr")].map('
        'row => row.cells[arguments[0]]?.textContent).filter(Boolean)',
        column)


def click(browser, label, dx=0, *, shift=False):
    """Click the middle of a box of 9 x 9 pixels, or beside it."""
    from selenium.webdriver import ActionChains, Keys

    x, y = ((label - 1) % 71 * STEP + 6.5 + dx,
            (label - 1) // 71 * STEP + 6.5)
    canvas = find(browser, '#canvas')
    width, height = canvas.size['width'], canvas.size['height']
    scale = min(width, height) / SIDE
    chain = ActionChains(browser)
    if shift:
        chain = chain.key_down(Keys.SHIFT)
    chain = chain.move_to_element_with_offset(
        canvas, round((x - SIDE / 2) * scale), round((SIDE / 2 - y) * scale)
    ).click()
    (chain.key_up(Keys.SHIFT) if shift else chain).perform()
    return 1.5 / scale                  # by how much it may miss, in pixels


def press(browser, key):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(key).perform()


def downloaded(browser, name, **options):
    path = browser.folder / name
    wait(path.exists)
    table = Table.read(path, format='ascii.csv', **options)
    path.unlink()
    return table


def test_click_shows_the_card(browser, field):
    labels, table = field
    big = table['label'][(table['area'].value == 81)
                         & (table['flags'] == 64)][3]
    click(browser, int(big))
    card = find(browser, '#card').text
    assert card.split()[0] == str(big)
    assert 'blended' in card
    assert 'area\n81 pix2' in card
    assert f'halves {big % 2 + 1}' in card
    row = find(browser, '#rows tr.selected')
    assert row.text.split()[0] == str(big)          # which was scrolled to


def test_sort_filter_and_download(browser, field):
    table = field[1]
    heads = browser.find_elements('css selector', '#rows th')
    place = [head.text for head in heads].index('area')
    for expected in (4, 81):
        browser.find_elements('css selector', '#rows th')[place].click()
        assert set(cells(browser, place)) == {str(expected)}
    find(browser, '#filter').send_keys('class=star area>50 flags=edge')
    good = ((table['class'] == 'star') & (table['area'].value > 50)
            & (table['flags'] == 1))
    assert find(browser, '#count').text == f'{good.sum()} of {N} labels'
    find(browser, '#save').click()
    saved = downloaded(browser, 'labels.csv')
    assert set(saved['label']) == set(table['label'][good])
    assert saved['area'].tolist() == sorted(table['area'][good].value)[::-1]
    assert_allclose(saved[HOSTILE], table[HOSTILE][saved['label'] - 1],
                    rtol=1e-9)
    find(browser, '#filter').send_keys(' magic<3')
    assert find(browser, '#count').text == 'no column magic'


def test_five_thousand_rows(browser):
    """Only rows that are seen exist; the last can be scrolled to."""
    assert find(browser, '#count').text == f'{N} of {N} labels'
    browser.execute_script(
        'document.getElementById("rows").scrollTop = 1e9')
    wait(lambda: str(N) in cells(browser, 0))
    assert len(cells(browser, 0)) < 100


def test_five_thousand_outlines(browser):
    """They are drawn one by one only where few of them are seen."""
    browser.execute_script("""
        window.strokes = 0;
        const pen = CanvasRenderingContext2D.prototype, stroke = pen.stroke;
        pen.stroke = function (...args) {
          window.strokes++;
          stroke.apply(this, args);
        };""")
    counts = []
    for _ in range(6):
        press(browser, '+')
        pixels(browser)
        counts.append(browser.execute_script(
            'const n = strokes; strokes = 0; return n'))
    assert counts[0] == 0               # thousands
    assert 0 < counts[-1] < 400


def pixels(browser):
    """What the canvas shows when all has been drawn."""
    return browser.execute_async_script("""
        const done = arguments[0];
        requestAnimationFrame(() => requestAnimationFrame(() => done(
          document.getElementById("canvas").toDataURL())));""")


def test_blink(browser):
    def shown():
        return find(browser, '#views [aria-pressed=true]').text.lstrip('12345')

    seen = {}
    for key, name in enumerate(('image', 'labels', 'halves', 'classes',
                                'confidence'), start=1):
        press(browser, str(key))
        assert shown() == name
        seen[name] = pixels(browser)
    assert len(set(seen.values())) == 5
    press(browser, ' ')
    assert (shown(), pixels(browser)) == ('classes', seen['classes'])
    find(browser, '#blink').click()
    wait(lambda: shown() == 'confidence')
    wait(lambda: shown() == 'classes')
    press(browser, 'b')
    press(browser, '1')
    press(browser, 'o')
    assert pixels(browser) != seen['image']                # without outlines
    assert find(browser, '#legend').text == ''


def test_a_place_is_kept_while_blinking(browser):
    click(browser, 4)
    assert find(browser, '#card h2').text.startswith('4 ')
    press(browser, '3')
    assert find(browser, '#card h2').text == '1'    # of 4 % 2 + 1
    assert find(browser, '#count').text == '2 of 2 halves'
    press(browser, '1')
    assert find(browser, '#card h2').text.startswith('4 ')


def test_edits(browser, field):
    for label in (2, 4):
        click(browser, label, shift=True)
    find(browser, '#add').click()
    # the labels themselves tell where a label is
    ys, xs = np.nonzero(field[0] == 5)
    miss = [click(browser, 5, dx, shift=True) for dx in (-2, 2)][0]
    find(browser, '#action').send_keys('split')
    find(browser, '#add').click()
    click(browser, 3, shift=True)
    find(browser, '#action').send_keys('reclassify')
    find(browser, '#class').send_keys('galaxy')
    find(browser, '#add').click()
    find(browser, '#action').send_keys('delete')
    find(browser, '#add').click()                   # nothing is chosen
    assert 'choose an object' in find(browser, '#chosen').text
    find(browser, '#save-edits').click()
    edits = downloaded(browser, 'edits.csv', fill_values=[],
                       converters={'*': str})
    assert edits.colnames == ['action', 'labels', 'x', 'y', 'class']
    assert edits['action'].tolist() == ['merge', 'split', 'reclassify']
    assert edits['labels'].tolist() == ['2 4', '5', '3']
    assert edits['class'].tolist() == ['', '', 'galaxy']
    x, y = (np.array(edits[axis][1].split(), float) for axis in 'xy')
    assert_allclose(x, xs.mean() + np.array([-2, 2]), atol=miss)
    assert_allclose(y, ys.mean(), atol=miss)


def test_hostile_names_are_shown_as_they_are(browser):
    assert find(browser, 'h1').text == HOSTILE
    assert browser.title == HOSTILE
    click(browser, 1)
    assert HOSTILE in find(browser, '#card h2').text
    press(browser, '?')
    assert HOSTILE in find(browser, '#help').text


def test_phone(driver, file):
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True})
    try:
        driver.get(f'file://{file}')
        wait(lambda: driver.execute_script(
            'return document.body.dataset.ready'))
        assert driver.execute_script(
            'return document.documentElement.scrollWidth') <= 360
        click(driver, 5)
        assert find(driver, '#card h2').text.startswith('5 ')
    finally:
        driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
