"""Writes optim.json beside it: twelve AdamW steps of torch 2 (float32, CPU) with clipping and a rising learning rate.

Two tensors, one with weight decay and one (a norm) without; gradients are drawn once and written out, so that the test
needs no random numbers of torch.
"""
import json
import pathlib

import torch

torch.manual_seed(0)
LR, BETAS, EPS, DECAY, MAX_NORM, STEPS = 1e-2, (0.9, 0.95), 1e-8, 0.1, 1.0, 12
weight = torch.nn.Parameter(torch.randn(3, 5))
norm = torch.nn.Parameter(torch.ones(5))
start = [weight.tolist(), norm.tolist()]
optimizer = torch.optim.AdamW(
    [{"params": [weight], "weight_decay": DECAY}, {"params": [norm], "weight_decay": 0.0}], lr=LR, betas=BETAS, eps=EPS
)
gradients, norms = [], []
for step in range(STEPS):
    for group in optimizer.param_groups:
        group["lr"] = LR * (step + 1) / STEPS
    weight.grad, norm.grad = torch.randn(3, 5) * 10 ** (step % 4 - 2), torch.randn(5)
    gradients.append([weight.grad.tolist(), norm.grad.tolist()])
    norms.append(float(torch.nn.utils.clip_grad_norm_([weight, norm], MAX_NORM)))
    optimizer.step()
state = [optimizer.state[p] for p in (weight, norm)]
out = dict(
    lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, max_norm=MAX_NORM, start=start, gradients=gradients, norms=norms,
    end=[weight.tolist(), norm.tolist()],
    exp_avg=[s["exp_avg"].tolist() for s in state], exp_avg_sq=[s["exp_avg_sq"].tolist() for s in state],
)
pathlib.Path(__file__).with_name("optim.json").write_text(json.dumps(out) + "\n")
