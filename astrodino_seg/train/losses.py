# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Losses of self-supervised pretraining: functions of tensors.

All of them are right with one process and with several: the mean over the
processes, or each process's value, is that of the whole batch. With one
process, or none set up by `torch.distributed`, sums and rows over processes
are what is given.
"""

import math

import torch
from torch import distributed, nn
from torch.nn import functional as F


def n_processes():
    """How many processes work together."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


class _AllSum(torch.autograd.Function):
    """The sum over processes; each of them depends on every term."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def all_sum(x):
    """The sum of a tensor over all processes."""
    return _AllSum.apply(x) if n_processes() > 1 else x


def all_rows(x):
    """
    The rows of all processes, in the order of their ranks.

    x (n, ...) -> rows (n_processes n, ...).
    """
    if n_processes() == 1:
        return x
    parts = [torch.zeros_like(x)] * n_processes()
    parts[distributed.get_rank()] = x
    return all_sum(torch.cat(parts))


def dino_loss(student, teacher, *, temperature=0.1):
    r"""
    Cross-entropy between the teacher's and the student's views of an image.

    .. math::

        L = \frac{1}{|P|} \sum_{(t, s) \in P} \left< - \sum_k p_{tk} \log
        \mathrm{softmax}_k (z_s / \tau) \right>, \quad
        P = \{(t, s): t \neq s\},

    where the brackets are the mean over the batch (Caron et al. 2021,
    `arXiv:2104.14294 <https://arxiv.org/abs/2104.14294>`_, equation 3 and
    Algorithm 1).

    student (S, B, K), teacher (T, B, K).
    """
    log_p = F.log_softmax(student / temperature, dim=-1)
    pairs = torch.einsum('tbk,sbk->ts', teacher, log_p) / student.shape[1]
    return -mean_over_pairs(pairs)


def mean_over_pairs(pairs):
    """
    The mean over pairs of different views.

    pairs (T, S).
    """
    n_pairs = pairs.numel() - min(pairs.shape)
    if n_pairs == 0:
        msg = (f'teacher and student need two different views, got '
               f'{pairs.shape[0]} and {pairs.shape[1]} views')
        raise ValueError(msg)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0).sum() / n_pairs


def ibot_loss(student, teacher, mask, *, temperature=0.1):
    """
    Cross-entropy between teacher and student in the masked patches.

    The student sees a mask token in their place, the teacher the patches
    (Zhou et al. 2022, `arXiv:2111.07832 <https://arxiv.org/abs/2111.07832>`_,
    equation 2; weights as in DINOv2, `arXiv:2304.07193
    <https://arxiv.org/abs/2304.07193>`_).

    student (M, K), teacher (M, K), mask (B, gh, gw).
    """
    log_p = F.log_softmax(student / temperature, dim=-1)
    return mean_over_masked(-(teacher * log_p).sum(dim=-1), mask)


def mean_over_masked(values, mask):
    """
    The mean over the masked patches of each image, then over the images.

    values (M,), mask (B, gh, gw).
    """
    mask = mask.flatten(1)                                      # (B, N)
    n_masked = mask.sum(dim=1, keepdim=True).clamp(min=1)
    weight = (1 / n_masked).expand_as(mask)[mask]               # (M,)
    return (values * weight).sum() / len(mask)


def koleo_loss(features, *, epsilon=1e-8):
    """
    Minus the mean logarithm of the distance to the nearest neighbour.

    The differential entropy of the features, as Kozachenko and Leonenko
    estimate it, up to constants (Sablayrolles et al. 2019, `arXiv:1806.03198
    <https://arxiv.org/abs/1806.03198>`_, equation 2; in DINOv2 on the CLS
    tokens). Neighbours are looked for in the batch of all processes.

    features (B, D).
    """
    features = all_rows(F.normalize(features, dim=-1))
    if len(features) < 2:
        msg = f'features: two or more are needed, got {len(features)}'
        raise ValueError(msg)
    with torch.no_grad():
        cosine = (features @ features.T).fill_diagonal_(-2)
        nearest = cosine.argmax(dim=1)
    difference = features - features[nearest]
    # the root has no slope at 0, where two features are equal
    distance = (difference.square().sum(dim=1) + epsilon**2).sqrt()
    return -(distance + epsilon).log().mean()


@torch.no_grad()
def sinkhorn_knopp(logits, temperature, *, n_iterations=3):
    """
    The teacher's probabilities such that all prototypes are used alike.

    In turn each prototype is given the same total over the batch of all
    processes and each sample the total 1 (Caron et al. 2020, SwAV,
    `arXiv:2006.09882 <https://arxiv.org/abs/2006.09882>`_, equation 3;
    in DINOv2 in place of the centre). Done with logarithms, so that no
    temperature is too low.

    logits (..., K) -> probabilities (..., K).
    """
    log_q = logits.flatten(0, -2) / temperature                 # (B, K)
    for _ in range(n_iterations):
        log_q = log_q - _logsumexp_of_all(log_q)
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
    return log_q.exp().reshape(logits.shape)


def _logsumexp_of_all(x):
    """(K,) logarithm of the sum of exp over the rows of all processes."""
    least = x.new_full((1, x.shape[1]), -torch.inf)     # if there are no rows
    largest = torch.cat([x, least]).amax(dim=0)
    if n_processes() > 1:
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return largest + all_sum((x - largest).exp().sum(dim=0)).log()


class Centre(nn.Module):
    r"""
    Centring and sharpening of the teacher.

    The centre :math:`c` is taken from the teacher's logits before a softmax
    of low temperature, and follows their mean over all processes, :math:`c
    \leftarrow m c + (1 - m) \bar z` (Caron et al. 2021, `arXiv:2104.14294
    <https://arxiv.org/abs/2104.14294>`_, equation 4). Centring alone leads to
    a uniform output, sharpening alone to one prototype for all; together they
    keep both away.

    value (K,).
    """

    def __init__(self, n_outputs, *, momentum=0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(n_outputs))
        self._seen = None

    @torch.no_grad()
    def softmax(self, logits, temperature):
        """
        The teacher's probabilities, centred and sharpened.

        logits (..., K) -> probabilities (..., K).
        """
        rows = logits.flatten(0, -2)
        seen = torch.cat([rows.sum(dim=0), rows.new_tensor([len(rows)])])
        self._seen = seen if self._seen is None else self._seen + seen
        return ((logits - self.value) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def update(self):
        """Move towards the mean of the logits since the last update."""
        if self._seen is None:
            return
        total = all_sum(self._seen)
        if total[-1] > 0:
            self.value.lerp_(total[:-1] / total[-1], 1 - self.momentum)
        self._seen = None


def alignment_loss(student, teacher):
    """
    Half the squared distance of two views of an image, over all pairs.

    Of unit vectors that is 1 less the cosine (Wu et al. 2025,
    `arXiv:2502.10385 <https://arxiv.org/abs/2502.10385>`_). Alone it would
    make all features equal: `coding_rate` goes with it.

    student (S, B, D), teacher (T, B, D).
    """
    cosine = torch.einsum('tbd,sbd->ts', teacher, student) / student.shape[1]
    return mean_over_pairs(1 - cosine)


def masked_alignment_loss(student, teacher, mask):
    """
    Half the squared distance of teacher and student in masked patches.

    student, teacher (M, D), mask (B, gh, gw).
    """
    return mean_over_masked(1 - (student * teacher).sum(dim=-1), mask)


def coding_rate(features, *, distortion=0.05):
    r"""
    The rate at which features are coded up to a distortion.

    .. math::

        R = \frac{1}{2} \log \det \left( I + \frac{d}{\varepsilon^2}
        \frac{Z^T Z}{n} \right)

    is least if all features are equal and largest if they fill all directions
    alike. SimDINO makes it large, in the place of prototypes, centre and
    temperatures (Wu et al. 2025, `arXiv:2502.10385
    <https://arxiv.org/abs/2502.10385>`_).

    features (n, d).
    """
    dim = features.shape[1]
    count = all_sum(features.new_tensor(len(features)))
    moment = all_sum(features.T @ features) / count             # (d, d)
    matrix = torch.eye(dim, dtype=features.dtype, device=features.device)
    matrix = matrix + dim / distortion * moment
    # the determinant is the squared product of the factor's diagonal
    return torch.linalg.cholesky(matrix).diagonal().log().sum()


def coding_rate_weight(n_features, dim):
    """
    The weight of the rate that balances it with the alignment.

    :math:`(n + d) / (n d)` keeps the two of one order whatever the batch (the
    choice of SimDINO's authors in their program).
    """
    return (n_features + dim) / (n_features * dim)


@torch.no_grad()
def distribution_state(teacher, cross_entropy):
    """
    Entropy of the teacher, its distance from the student, and information.

    teacher (T, B, K).
    """
    log_p = teacher.clamp(min=1e-30).log()
    entropy = -(teacher * log_p).sum(dim=-1).mean()
    mean = teacher.mean(dim=1, keepdim=True)
    of_mean = -(mean * mean.clamp(min=1e-30).log()).sum(dim=-1).mean()
    _, n_images, n_prototypes = teacher.shape
    limit = math.log(max(min(n_images, n_prototypes), 2))
    return {'teacher_entropy': entropy / math.log(n_prototypes),
            'kl': cross_entropy.detach() - entropy,
            'information': (of_mean - entropy) / limit}


@torch.no_grad()
def feature_spread(features):
    """
    How much unit features differ from image to image.

    features (T, B, D).
    """
    unit = F.normalize(features, dim=-1)
    variance = unit.var(dim=1, correction=0).sum(dim=-1)        # (T,)
    return variance.mean().sqrt()
