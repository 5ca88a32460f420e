"""Writes optimizers.json beside it: eight steps each of torch.optim.SGD (torch 2) and of transformers.optimization.Adafactor
(float32, CPU), in several settings.

A matrix and a vector; gradients are drawn once and written out, so that the test needs no random numbers of torch.
"""
import json
import pathlib

import torch
from transformers.optimization import Adafactor

STEPS, LR = 8, 1e-2
torch.manual_seed(0)
START = [torch.randn(3, 5) * 0.3, torch.ones(5)]
GRADIENTS = [[torch.randn(3, 5) * 10 ** (step % 3 - 1), torch.randn(5)] for step in range(STEPS)]


def run(make):
    weights = [torch.nn.Parameter(w.clone()) for w in START]
    optimizer = make(weights)
    for gradients in GRADIENTS:
        for weight, gradient in zip(weights, gradients):
            weight.grad = gradient.clone()
        optimizer.step()
    state = [
        {k: v.tolist() for k, v in optimizer.state[w].items() if torch.is_tensor(v) and v.dim() > 0} for w in weights
    ]
    return dict(end=[w.tolist() for w in weights], state=state)


def sgd(**settings):
    return run(lambda weights: torch.optim.SGD(weights, lr=LR, **settings))


def adafactor(**settings):
    settings = dict(lr=LR, relative_step=False, scale_parameter=False, warmup_init=False) | settings
    return run(lambda weights: Adafactor(weights, **settings))


out = dict(
    lr=LR,
    start=[w.tolist() for w in START],
    gradients=[[g.tolist() for g in step] for step in GRADIENTS],
    sgd=sgd(),
    sgd_decay=sgd(weight_decay=0.1),
    sgd_momentum=sgd(momentum=0.9, weight_decay=0.1),
    sgd_nesterov=sgd(momentum=0.9, nesterov=True, weight_decay=0.1),
    adafactor=adafactor(),
    adafactor_scaled=adafactor(scale_parameter=True, clip_threshold=0.5, decay_rate=-0.5, weight_decay=0.1),
    adafactor_momentum=adafactor(beta1=0.9, eps=(1e-3, 1e-2), weight_decay=0.1),
    adafactor_relative=adafactor(lr=None, relative_step=True, scale_parameter=True),
)
pathlib.Path(__file__).with_name("optimizers.json").write_text(json.dumps(out) + "\n")
