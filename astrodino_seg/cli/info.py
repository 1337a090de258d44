# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
``astrodino info``.
"""

__all__ = ['add_parser', 'run']


def add_parser(commands):
    """Add the subcommand."""
    info = commands.add_parser('info', help='model, versions and devices')
    info.add_argument('--model', help='a weights file of a model or backbone, '
                                      'or the name of a bundled one')
    info.set_defaults(run=run)


def run(args):
    """Run the subcommand."""
    import platform
    from importlib.metadata import version

    import torch

    from astrodino_seg.models.files import DEFAULT_MODEL
    from astrodino_seg.models.load import load_any

    model = load_any(args.model)
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f'model: {args.model or DEFAULT_MODEL}')
    print(f'parameters: {n_parameters / 1e6:.2f} million')
    for name, spec in (*model.spec.items(),
                       ('provenance', model.provenance)):
        print(f'{name}: ' + ', '.join(f'{k}={v}' for k, v in spec.items()))
    packages = ('astrodino_seg', 'torch', 'photutils', 'astropy', 'numpy')
    print('versions: python ' + platform.python_version() + ', '
          + ', '.join(f'{name} {version(name)}' for name in packages))
    devices = ['cpu'] + [f'cuda:{k} ({torch.cuda.get_device_name(k)})'
                         for k in range(torch.cuda.device_count())]
    print(f'devices: {", ".join(devices)}; '
          f'{torch.get_num_threads()} CPU threads')
    return 0
