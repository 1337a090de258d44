# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Many jobs, one after the other or on a Dask cluster; nothing else knows Dask.
"""

import os
from contextlib import nullcontext
from functools import lru_cache

from tqdm import tqdm

from astrodino_seg.errors import require

#: Jobs that are handed out at a time, for each thread of the cluster: one to
#: be done and one to go on with.
IN_HAND = 2


def run_all(work, jobs, *, n_jobs, scheduler=None, retries=3, progress=False,
            unit='job'):
    """
    Do all jobs, and yield ``(job number, result)`` as they are done.

    ``work`` is a function of a module, and ``jobs`` yields one dict or tuple
    each. Dask arrays in it are computed where the work is done. A job whose
    worker died is given to another one, and may be done twice: what it leaves
    must be the same. ``scheduler`` is an address or a
    ``distributed.Client``; without, jobs are done here.
    """
    with tqdm(total=n_jobs, disable=not progress, desc='segmenting',
              unit=unit, leave=False) as bar:
        done = (((k, work(job)) for k, job in enumerate(jobs))
                if scheduler is None else
                _on_cluster(work, jobs, scheduler, retries))
        for one in done:
            bar.update()
            yield one


def _on_cluster(work, jobs, scheduler, retries):
    distributed = require('distributed', 'dask')
    from dask import delayed

    with (distributed.Client(scheduler, set_as_default=False)
          if isinstance(scheduler, str) else nullcontext(scheduler)) as client:
        waiting, number = enumerate(jobs), {}
        running = distributed.as_completed(loop=client.loop)

        def hand_out():
            # asked each time: workers come and go
            n = IN_HAND * max(sum(client.nthreads().values()), 1)
            while running.count() < n:
                k, job = next(waiting, (None, None))
                if k is None:
                    return
                future = client.compute(delayed(_there, pure=False)(
                    work, job, os.getcwd()), retries=retries)
                number[future.key] = k
                running.add(future)

        hand_out()
        for future in running:
            yield number.pop(future.key), future.result()
            hand_out()


def _there(work, job, folder):
    """Work in the folder of the client, for names of files are of there."""
    os.chdir(folder)
    return work(job)


def recipe_of(finder):
    """What `finder_of` makes an equal finder of, in any process."""
    return type(finder), tuple(
        (name, value) for name, value in vars(finder).items()
        if not (name.startswith('_') or name.endswith('_')))


@lru_cache(maxsize=1)
def finder_of(recipe):
    """The finder of a recipe: one, and one model, in each process."""
    kind, settings = recipe
    return kind(**{**dict(settings), 'progress_bar': False})
