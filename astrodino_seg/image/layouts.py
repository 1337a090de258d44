# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Who writes what: the planes, mask bits, filters and units of pipelines.

`ROLES` and `PIPELINES` are what the code uses and what the page "What is read
from a file" shows.
"""

import re
import warnings
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np

from astrodino_seg.errors import AstroDinoUserWarning
from astrodino_seg.image.fits import header_value

#: What a plane holds, by the words of its name (EXTNAME, or EXTTYPE or
#: IMAGETYP if that says nothing); the first that fits counts. 'skip' is known
#: and not needed.
ROLES = {
    'skip': (
        'psf kernel wcsdvarr d2imarr poisson rnoise flat con ctx area '
        'seg segm segmap segmentation labels objmask sourcemask bkgmask '
        'maskbits objects model resid residual bkg bkgd background zodi samp '
        'time nexp exp expmap exposure coverage nimage ncombine chi chi2 '
        'psfsize depth galdepth trace fibermap'),
    'good': 'good goodpix gpm valid',
    'std': ('err errs error errors rms std stdev stddev sigma noise unc '
            'uncert uncertainty'),
    'ivar': 'ivar invvar ivm wgt inversevariance invvariance',
    'var': 'var variance stat',
    'weight': 'wht weight weights wt confidence',
    'mask': ('mask msk dq dataquality quality qual bpm badpix badpixel '
             'badpixels badpixelmask flag flags flg'),
    'science': 'sci science data image img flux signal counts intensity'}
_WORDS = {word: role for role, words in ROLES.items()
          for word in words.split()}
_UTYPES = {'StdDevUncertainty': 'std', 'VarianceUncertainty': 'var',
           'InverseVariance': 'ivar', 'UnknownUncertainty': 'skip'}
_ESO = {('DATA', ''): 'science', ('ERROR', 'MSE'): 'var',
        ('ERROR', 'RMSE'): 'std', ('ERROR', 'INVMSE'): 'ivar',
        ('QUALITY', ''): 'mask', ('QUALITY', 'MASKONE'): 'good'}

#: Keywords that can name the filter; the first known filter counts.
FILTER_KEYS = ('BAND', 'PUPIL', 'FILTER', 'FILTER1', 'FILTER2', 'FILTER3',
               'FILTNAM1', 'FILTNAM2', 'PHYSFILT', 'FPA.FILTERID',
               'FPA.FILTER', 'ESO INS FILT1 NAME', 'ESO INS FILT2 NAME')


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """
    What one pipeline writes.

    ``told_by`` has a regular expression for each keyword that tells it, of
    the plane or of the primary header. The bad pixels of its masks are those
    with any of ``bits``, with one of ``values``, or with the bits that the
    header names MP_<one of ``names``>. ``filters`` translates what a keyword
    says. ``planes`` and ``source`` are for people.
    """

    name: str
    planes: str
    source: str
    told_by: dict = field(default_factory=dict)
    bits: int | None = None
    values: tuple = ()
    names: tuple = ()
    filters: dict = field(default_factory=dict)


#: The first that fits counts. Saturated pixels stay: they are bright.
PIPELINES = (
    Pipeline(name='JWST (jwst)', told_by={'TELESCOP': 'JWST'}, bits=1,
             planes='SCI, ERR, DQ (DO_NOT_USE); WHT of mosaics',
             source='https://jwst-pipeline.readthedocs.io/en/latest/jwst/'
                    'references_general/references_general.html'
                    '#data-quality-flags'),
    Pipeline(name='Roman (romancal; as FITS)', told_by={'TELESCOP': 'ROMAN'},
             bits=1, planes='DATA or SCI, ERR, DQ (DO_NOT_USE)',
             source='https://roman-pipeline.readthedocs.io/en/latest/roman/'
                    'data_products/science_products.html'),
    Pipeline(name='HST WFC3/IR (calwf3)',
             told_by={'TELESCOP': 'HST', 'INSTRUME': 'WFC3',
                      'DETECTOR': 'IR'},
             bits=1 + 2 + 4 + 8 + 16 + 32 + 128 + 4096,
             planes='SCI, ERR, DQ by EXTVER; WHT, CTX of mosaics',
             source='WFC3 Data Handbook 5, Table 3.3; https://github.com/'
                    'spacetelescope/stginga, stginga/data/dqflags_wfc3.txt; '
                    '64, 512, 1024, 2048 and 8192 are of pixels that '
                    'AstroDrizzle uses'),
    Pipeline(name='HST ACS and WFC3/UVIS (calacs, calwf3)',
             told_by={'TELESCOP': 'HST', 'INSTRUME': 'ACS|WFC3'},
             bits=(1 + 2 + 4 + 8 + 32 + 128 + 512 + 1024 + 4096 + 8192),
             planes='SCI, ERR, DQ by EXTVER; WHT, CTX of mosaics',
             source='ACS Data Handbook 10, Table 3.4; https://github.com/'
                    'spacetelescope/stginga, stginga/data/dqflags_acs.txt; '
                    '16, 64 and 256 are of pixels that AstroDrizzle uses'),
    Pipeline(name='Euclid (VIS, NIR, MER)', bits=1,
             told_by={'TELESCOP': 'EUCLID'},
             planes='DET11.SCI, .RMS, .DQ or 1-1.E.SCI, .RMS, .FLG '
                    '(INVALID)',
             filters={'FILTER': {'Y': 'NIR_Y', 'J': 'NIR_J', 'H': 'NIR_H'}},
             source='https://euclid.esac.esa.int/dr/q1/dpdd/nirdpd/dpcards/'
                    'nir_calibratedframe.html'),
    Pipeline(name='LSST, HSC and SPHEREx (header names the bits)',
             told_by={'MP_*': ''},
             names=('BAD', 'NO_DATA', 'UNMASKEDNAN', 'NONFUNC',
                    'MISSING_DATA', 'SUR_ERROR', 'HOT', 'COLD', 'PHANTOM',
                    'REFERENCE'),
             planes='IMAGE, MASK or FLAGS, VARIANCE, or EXTTYPE alone',
             source='https://dp1.lsst.io/products/images/'
                    'deep_coadd_mask_planes.html; https://caltech-ipac.'
                    'github.io/spherex-archive-documentation/'
                    'spherex-data-products'),
    Pipeline(name='Gemini (DRAGONS)', told_by={'OBSERVAT|TELESCOP': 'Gemini'},
             bits=1 + 8 + 16 + 64, planes='SCI, VAR, DQ by EXTVER',
             source='https://github.com/GeminiDRSoftware/DRAGONS, '
                    'geminidr/gemini/lookups/DQ_definitions.py'),
    Pipeline(name='LCO (BANZAI)', told_by={'ORIGIN|OBSERVAT': 'LCO'},
             bits=1 + 8, planes='SCI, BPM, ERR',
             source='https://github.com/LCOGT/banzai, banzai/bpm.py and '
                    'cosmic.py'),
    Pipeline(name='DECam Community Pipeline from V3.5',
             told_by={'INSTRUME': 'DECam', 'PLVER': r'V(3\.[5-9]|[4-9])'},
             values=(1, 2, 4, 5, 6, 8),
             planes='image, DQ or MASK by CCDNUM (one number a pixel)',
             source='https://community.lsst.org/t/'
                    'decam-data-quality-masks/133'),
    Pipeline(name='DECam Community Pipeline before V3.5',
             told_by={'INSTRUME': 'DECam', 'PLVER': 'V[0-3]'},
             bits=1 + 16 + 64 + 128, planes='image, DQ or MASK by CCDNUM',
             source='https://github.com/legacysurvey/legacypipe, '
                    'py/legacypipe/image.py'),
    Pipeline(name='DES (DESDM)', told_by={'INSTRUME|DETECTOR': 'DECam'},
             bits=1 + 8 + 16 + 64 + 128 + 256 + 512 + 1024,
             planes='SCI, MSK, WGT (inverse variance)',
             source='https://github.com/DarkEnergySurvey/despyfits, '
                    'include/mask_bits.h'),
    Pipeline(name='ESO (science data products, MUSE)', bits=-1,
             told_by={'HDUCLASS|ORIGIN': 'ESO'},
             planes='DATA, STAT (variance), DQ, or HDUCLAS2 and HDUCLAS3; '
                    'any bit is bad, or those of QUALMASK',
             source='ESO Science Data Products Standard, ESO-044286; '
                    'Data Interface Control Document, GEN-SPE-ESO-19400-0794'),
    Pipeline(name='WISE and unWISE',
             told_by={'TELESCOP|ORIGIN|INSTRUME|SURVEY': '(un)?WISE'},
             planes='one image a file',
             filters={'BAND': {k: f'W{k}' for k in '1234'}},
             source='https://wise2.ipac.caltech.edu/docs/release/allsky/'
                    'expsup/sec2_3.html'),
    Pipeline(name='GALEX', told_by={'TELESCOP|INSTRUME': 'GALEX'},
             planes='one image a file',
             filters={'BAND': {'1': 'NUV', '2': 'FUV'}},
             source='https://archive.stsci.edu/missions-and-data/galex'),
    Pipeline(name='Spitzer (IRAC)', told_by={'INSTRUME': 'IRAC'},
             planes='one image a file',
             filters={'CHNLNUM': {k: f'IRAC{k}' for k in '1234'}},
             source='https://irsa.ipac.caltech.edu/data/SPITZER/docs/irac/'
                    'iracinstrumenthandbook/'),
    Pipeline(name='Herschel', told_by={'TELESCOP': 'Herschel'},
             planes='image, error or stDev, coverage',
             source='https://irsa.ipac.caltech.edu/data/Herschel/PHPDP/'),
    Pipeline(name='Pan-STARRS1 stacks',
             told_by={'BSOFTEN': '', 'BOFFSET': ''},
             planes='one image a file; its asinh is undone',
             source='http://svn.pan-starrs.ifa.hawaii.edu/trac/ipp/wiki/'
                    'asinh_compression'),
    Pipeline(name='Legacy Surveys cutouts', told_by={'SURVEY': 'legacy'},
             planes='image and invvar by IMAGETYP, bands by BAND or BANDS',
             source='https://www.legacysurvey.org/viewer'),
)


def told(*headers):
    """The pipeline that headers tell of, that of the plane first; or None."""
    def has(keys, pattern):
        if keys == 'MP_*':
            return any(key.startswith('MP_') for key in headers[0])
        return any(isinstance(value, (str, int, float))
                   and re.match(pattern, str(value).strip(), re.I)
                   for one in headers if one is not None
                   for key in keys.split('|')
                   if (value := header_value(one, key)) is not None)

    for pipeline in PIPELINES:
        if all(has(*rule) for rule in pipeline.told_by.items()):
            return pipeline
    return None


def role_of(header):
    """
    What a plane is by its header: a key of `ROLES` or None.

    Also what is left of its EXTNAME without the words for that: the name of a
    detector or of a band.
    """
    name = str(header_value(header, 'EXTNAME', ''))
    role, rest = _by_words(name)
    eso = [str(header_value(header, f'HDUCLAS{k}', '')).strip() for k in '23']
    if eso[0] in ('DATA', 'ERROR', 'QUALITY'):
        role = _ESO.get(tuple(eso), _ESO.get((eso[0], ''), role))
    for key in ('EXTTYPE', 'IMAGETYP'):
        text = str(header_value(header, key, '')).strip()
        if role is None and re.fullmatch(r'\w+', text):    # no phrase
            role = _by_words(text)[0]
    if role == 'std' and 'UTYPE' in header:         # of CCDData
        role = _UTYPES.get(header_value(header, 'UTYPE'), 'skip')
    return role, rest


def _by_words(text):
    """The role that a name tells, and what else is in it."""
    words = [word for word in re.split(r'[^a-z0-9]+', text.lower()) if word]
    if words == ['compressed', 'image']:            # astropy's for no name
        return None, ''
    roles, rest = set(), []
    while words:
        for n in (3, 2, 1):
            word = ''.join(words[:n])
            number = word[len(word.rstrip('0123456789')):]
            for one in (word, word.rstrip('0123456789'), re.sub(
                    '(map|image|img|plane|array)s?$', '', word)):
                if one in _WORDS and len(words) >= n:
                    break
            else:
                continue
            roles.add(_WORDS[one])
            rest += [number] * (one != word and number != '')
            break
        else:
            n = 1
            rest.append(words[0])
        words = words[n:]
    role = next((role for role in ROLES if role in roles), None)
    return role, ' '.join(rest)


def bad_pixels(array, header, *others, bad_bits=None):
    """
    Which pixels a mask marks, (y, x) bool; or, as a str, why none is used.

    ``header`` is its own, ``others`` are those of its image and its file.

    By the first that there is: ``bad_bits`` of the user (0 for none, 'any'),
    the bits that the header names, those of its pipeline, the one value that
    all marked pixels have, and any value if the name says bad pixels.
    """
    if bad_bits == 'any':
        return array != 0               # NaN too
    nonzero = array[array != 0]
    if nonzero.size == 0 and bad_bits is None:
        return np.zeros(array.shape, bool)
    if array.dtype.kind == 'f' and not (
            np.isfinite(nonzero) & (nonzero == np.rint(nonzero))).all():
        return 'its values are no integers'
    bits, values = bad_bits, ()
    pipeline = told(header, *others)
    if bits is None and pipeline is not None:
        bits, values = pipeline.bits, pipeline.values
        named = [header_value(header, f'MP_{name}')
                 for name in pipeline.names]
        if pipeline.names:
            bits = sum(1 << plane for plane in named
                       if isinstance(plane, int)) or None
        quality = header_value(header, 'QUALMASK')
        if bits == -1 and isinstance(quality, int):     # ESO
            bits = quality
    if values:
        return np.isin(array, values)
    if bits is not None:
        return (array.astype(np.int64) & bits) != 0
    name = str(header_value(header, 'EXTNAME', '')).lower()
    if (nonzero == nonzero[0]).all() or re.search('bpm|bad', name):
        return array != 0
    return ('the meaning of its bits is not known; bad_bits tells those that '
            'are bad')


def check_bits(bad_bits):
    """Raise if these are no bits."""
    if bad_bits not in (None, 'any') and (
            isinstance(bad_bits, bool) or not isinstance(bad_bits, Integral)):
        msg = (f"bad_bits must be an int, the sum of bits, 'any' or None, "
               f'got {bad_bits!r}')
        raise ValueError(msg)


def warn_of_bits(bad_bits, label):
    """Say that bits were given for what has no mask with bits."""
    if bad_bits is not None:
        msg = f'bad_bits is not used: {label} has no mask of bits'
        warnings.warn(msg, AstroDinoUserWarning)
