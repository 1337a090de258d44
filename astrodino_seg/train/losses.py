# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
Losses of self-supervised pretraining and of semantic heads.

Those of pretraining are right with one process and with several: the mean over
the processes, or each process's value, is that of the whole batch.
"""

import math
from contextlib import nullcontext

import torch
from torch import distributed, nn
from torch.nn import functional as F

from astrodino_seg.models.semantic import SemanticModel
from astrodino_seg.train.crops import TokenCrop

#: Weight of the pixels of sky, star, galaxy, artifact: the rare count more.
CLASS_WEIGHTS = (1.0, 4.0, 1.0, 4.0)


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
    """The rows (n, ...) of all processes, in the order of their ranks."""
    if n_processes() == 1:
        return x
    parts = [torch.zeros_like(x)] * n_processes()
    parts[distributed.get_rank()] = x
    return all_sum(torch.cat(parts))


def dino_loss(student, teacher, *, temperature=0.1):
    """
    Cross-entropy of the views of an image, teacher (T, B, K) probabilities and
    student (S, B, K) logits, over pairs of different ones (Caron et al. 2021,
    arXiv:2104.14294, equation 3).
    """
    log_p = F.log_softmax(student / temperature, dim=-1)
    pairs = torch.einsum('tbk,sbk->ts', teacher, log_p) / student.shape[1]
    return -mean_over_pairs(pairs)


def mean_over_pairs(pairs):
    """The mean over pairs (T, S) of different views."""
    n_pairs = pairs.numel() - min(pairs.shape)
    if n_pairs == 0:
        msg = (f'teacher and student need two different views, got '
               f'{pairs.shape[0]} and {pairs.shape[1]} views')
        raise ValueError(msg)
    same = torch.eye(*pairs.shape, dtype=torch.bool, device=pairs.device)
    return pairs.masked_fill(same, 0).sum() / n_pairs


def ibot_loss(student, teacher, mask, *, temperature=0.1):
    """
    Cross-entropy of teacher and student, (M, K), in the patches that a mask
    (B, gh, gw) hides from the student (Zhou et al. 2022, arXiv:2111.07832,
    equation 2; weights as in DINOv2, arXiv:2304.07193).
    """
    log_p = F.log_softmax(student / temperature, dim=-1)
    return mean_over_masked(-(teacher * log_p).sum(dim=-1), mask)


def mean_over_masked(values, mask):
    """
    The mean of (M,) values over the masked patches (B, gh, gw) of each image,
    then over the images.
    """
    mask = mask.flatten(1)                                      # (B, N)
    n_masked = mask.sum(dim=1, keepdim=True).clamp(min=1)
    weight = (1 / n_masked).expand_as(mask)[mask]               # (M,)
    return (values * weight).sum() / len(mask)


def koleo_loss(features, *, epsilon=1e-8):
    """
    Minus the mean logarithm of the distance of features (B, D) to the nearest
    neighbour in the batch of all processes (Sablayrolles et al. 2019,
    arXiv:1806.03198, equation 2): their entropy, up to constants.
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
    Probabilities (..., K) of the teacher such that all prototypes are used
    alike in the batch of all processes (Caron et al. 2020, arXiv:2006.09882,
    equation 3). Done with logarithms, so that no temperature is too low.
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
    """
    Centring and sharpening of the teacher: a centre (K,), which follows the
    mean logits of all processes, is taken from them before a softmax of low
    temperature (Caron et al. 2021, arXiv:2104.14294, equation 4).
    """

    def __init__(self, n_outputs, *, momentum=0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(n_outputs))
        self._seen = None

    @torch.no_grad()
    def softmax(self, logits, temperature):
        """Probabilities of logits (..., K), centred and sharpened."""
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
    Half the squared distance of unit vectors, student (S, B, D) and teacher
    (T, B, D), over pairs of different views (Wu et al. 2025,
    arXiv:2502.10385). It goes with `coding_rate`: alone it makes all equal.
    """
    cosine = torch.einsum('tbd,sbd->ts', teacher, student) / student.shape[1]
    return mean_over_pairs(1 - cosine)


def masked_alignment_loss(student, teacher, mask):
    """The same of student and teacher (M, D) in masked patches."""
    return mean_over_masked(1 - (student * teacher).sum(dim=-1), mask)


def coding_rate(features, *, distortion=0.05):
    """
    The rate at which features (n, d) are coded up to a distortion, which is
    largest if they fill all directions alike: 1/2 log det(I + d / distortion
    Z^T Z / n) (Wu et al. 2025, arXiv:2502.10385).
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
    The weight of the rate that keeps it of one order with the alignment, as
    SimDINO's authors have it in their program.
    """
    return (n_features + dim) / (n_features * dim)


@torch.no_grad()
def distribution_state(teacher, cross_entropy):
    """
    Entropy of the teacher (T, B, K), its distance from the student, and its
    information.
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
    """How much unit features (T, B, D) differ from image to image."""
    unit = F.normalize(features, dim=-1)
    variance = unit.var(dim=1, correction=0).sum(dim=-1)        # (T,)
    return variance.mean().sqrt()


def class_loss(logits, classes, weights=CLASS_WEIGHTS):
    """Cross-entropy of the classes of pixels (B, y, x)."""
    if (classes < 0).all():
        return logits.sum() * 0
    log_p, weights = with_any_object(logits, weights)
    return F.nll_loss(log_p, classes, weight=weights, ignore_index=-1)


def with_any_object(logits, weights=CLASS_WEIGHTS):
    """
    Log probabilities (B, n + 1, ...) of logits (B, n, ...), and weights: the
    last is that of an object of any class, which is not the sky.
    """
    log_p = logits.log_softmax(dim=1)
    some = torch.logsumexp(log_p[:, 1:], dim=1, keepdim=True)
    return (torch.cat([log_p, some], dim=1),
            logits.new_tensor([*weights, min(weights[1:])]))


def imitation_loss(maps, taught):
    """
    How far maps are from those of a teacher (Hinton et al. 2015,
    arXiv:1503.02531), in all pixels, void or not.
    """
    (classes, *heat), (wanted, *peaks) = maps, taught
    loss = F.kl_div(classes.log_softmax(1), wanted.log_softmax(1),
                    log_target=True, reduction='none').sum(dim=1).mean()
    for own, true in zip(heat, peaks):
        both = [F.logsigmoid(torch.stack([one, -one])) for one in (own, true)]
        loss = loss + F.kl_div(*both, log_target=True,
                               reduction='none').sum(dim=0).mean()
    return loss


def dense_logits(head, maps):
    """What a teacher can teach of the maps of a level."""
    classes = head.split_pixels(maps.pixels)[2]
    return classes.permute(0, 3, 1, 2), maps.heat[:, None]


def teach(teacher, x, binned=None):
    """What a teacher says of planes (B, plane, y, x)."""
    if binned is None:
        binned = torch.zeros(len(x), dtype=torch.long, device=x.device)
    with torch.no_grad():
        if isinstance(teacher, SemanticModel):
            return (teacher.probabilities(x).clamp(min=1e-6).log(),)
        return dense_logits(teacher.head, teacher(x, binned))


def semantic_losses(model, crops, generator, *, class_weights=CLASS_WEIGHTS,
                    teacher=None, autocast=nullcontext, device='cpu'):
    """Mean losses of some crops of one size."""
    cached = isinstance(crops[0], TokenCrop)
    x = torch.stack([crop.tokens if cached else crop.channels
                     for crop in crops]).to(device).contiguous(
        memory_format=torch.channels_last)
    with autocast():
        if cached:
            logits = model.logits(x.float(), crops[0].classes.shape)
        else:
            k = torch.randint(len(model.scales), (), generator=generator)
            logits = model(x, model.scales[k])
    logits = logits.float()
    losses = {'classes': class_loss(
        logits, torch.stack([crop.classes for crop in crops]).to(device),
        class_weights)}
    if teacher is not None:
        taught = (torch.stack([crop.taught for crop in crops])
                  .to(device).float(),) if cached else teach(teacher, x)
        losses['teacher'] = imitation_loss((logits,), taught)
    return losses
