"""Writes ppo.json beside it: rewards, advantages, losses and gradients of one PPO micro-batch by TRL's formulas.

Whitening and masked means are TRL 1.12.0's own functions; the rest repeats the lines of its PPOTrainer.train (steps 4 to 6
and the minibatch loop), which cannot be called apart. All responses have full length, where its conventions and ours agree.
"""
import json
import pathlib

import torch
from trl.experimental.ppo.ppo_trainer import masked_mean, masked_whiten

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
N, T = 4, 6
KL_COEF, GAMMA, LAM, CLIP, VCLIP, VF = 0.05, 0.98, 0.95, 0.2, 0.2, 0.1
logprobs = -2 * torch.rand(N, T) - 0.1
ref_logprobs = logprobs + 0.3 * torch.randn(N, T)
values, scores = torch.randn(N, T), torch.randn(N)
new_logprobs, vpred = logprobs + 0.3 * torch.randn(N, T), values + 0.4 * torch.randn(N, T)
mask = torch.ones(N, T, dtype=torch.bool)
cases = []
for estimator in ("k1", "k3"):
    for whiten_rewards in (False, True):
        logr = ref_logprobs - logprobs
        kl = -logr if estimator == "k1" else (logr.exp() - 1) - logr
        rewards = -KL_COEF * kl
        rewards[torch.arange(N), T - 1] += scores
        if whiten_rewards:
            rewards = masked_whiten(rewards, mask=mask, shift_mean=False)
        lastgaelam, reverse = 0, []
        for t in reversed(range(T)):
            nextvalues = values[:, t + 1] if t < T - 1 else 0.0
            delta = rewards[:, t] + GAMMA * nextvalues - values[:, t]
            lastgaelam = delta + GAMMA * LAM * lastgaelam
            reverse.append(lastgaelam)
        advantages = torch.stack(reverse[::-1], axis=1)
        returns = advantages + values
        advantages = masked_whiten(advantages, mask)
        p, v = new_logprobs.clone().requires_grad_(), vpred.clone().requires_grad_()
        clipped = torch.clamp(v, values - VCLIP, values + VCLIP)
        vf_losses1, vf_losses2 = torch.square(v - returns), torch.square(clipped - returns)
        vf_loss = 0.5 * masked_mean(torch.max(vf_losses1, vf_losses2), mask)
        ratio = torch.exp(p - logprobs)
        pg_losses = -advantages * ratio
        pg_losses2 = -advantages * torch.clamp(ratio, 1.0 - CLIP, 1.0 + CLIP)
        pg_loss = masked_mean(torch.max(pg_losses, pg_losses2), mask)
        (pg_loss + VF * vf_loss).backward()
        flat = lambda x: x.detach().flatten().tolist()
        cases.append(
            dict(
                estimator=estimator, whiten_rewards=whiten_rewards, reward=flat(rewards), advantage=flat(advantages),
                returns=flat(returns), pg_loss=pg_loss.item(), vf_loss=vf_loss.item(),
                pg_clipfrac=masked_mean((pg_losses2 > pg_losses).double(), mask).item(),
                vf_clipfrac=masked_mean((vf_losses2 > vf_losses1).double(), mask).item(),
                approxkl=(0.5 * ((p - logprobs) ** 2).mean()).item(),
                kl=(logprobs - ref_logprobs).sum(1).mean().item(),
                logprob_grad=flat(p.grad), value_grad=flat(v.grad),
            )
        )
out = dict(
    sequences=N, tokens=T, kl_coef=KL_COEF, gamma=GAMMA, lam=LAM, cliprange=CLIP, cliprange_value=VCLIP, vf_coef=VF,
    logprob=flat(logprobs), reference=flat(ref_logprobs), value=flat(values), score=flat(scores),
    new_logprob=flat(new_logprobs), new_value=flat(vpred), cases=cases,
)
pathlib.Path(__file__).with_name("ppo.json").write_text(json.dumps(out) + "\n")
