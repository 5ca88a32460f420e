"""Writes ppo.json and ppo_trainer.json beside it: PPO of TRL 1.12.0.

ppo.json: rewards, advantages, losses and gradients of one micro-batch. Whitening and masked means are TRL's own functions; the
rest repeats the lines of its PPOTrainer.train (steps 4 to 6 and the minibatch loop), which cannot be called apart. All
responses have full length, where its conventions and ours agree.

ppo_trainer.json: one update of its PPOTrainer, run whole (forwards, shaping, losses, backward, AdamW) in float64 on
models/tied_mha with models/classifier as the critic; only sampling and scores are replaced, by recorded ones. It is watched
from the calls that it makes: their caller's locals are the numbers of the update. These runs are where its conventions and
ours part: responses that end early, a minibatch of several micro-batches, a norm that gradients should be clipped to, and one
rate for both networks.
"""
import copy
import inspect
import json
import pathlib
import tempfile

import numpy
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer
from trl.experimental.ppo.ppo_trainer import masked_mean, masked_whiten

HERE = pathlib.Path(__file__).parent

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
(HERE / "ppo.json").write_text(json.dumps(out) + "\n")

# ppo_trainer.json. The trainer takes four of eight prompts: it would make an optimizer step of every micro-batch of a data
# set's last batch.
torch.set_default_dtype(torch.float32)
ROWS, BATCH, PROMPT = 8, 4, 3
PAD, EOS = 0, 2
words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({f"w{i}": i for i in range(48)}, unk_token="w3")))
words.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
words.pad_token, words.eos_token, words.unk_token = "w0", "w2", "w3"
torch.manual_seed(6)
prompts = torch.randint(4, 48, (ROWS, PROMPT)).tolist()
drawn = torch.randint(4, 48, (ROWS, T)).tolist()
row_scores = torch.randn(ROWS).mul(2).round(decimals=2).double()
ENDS = [6, 3, 1, 5, 4, 6, 2, 3]  # tokens of a response with its end, where responses end


def load(kind, name):
    return kind.from_pretrained(HERE / "models" / name, dtype=torch.float64)


policy, critic = load(LlamaForCausalLM, "tied_mha"), load(LlamaForSequenceClassification, "classifier")
reference = copy.deepcopy(policy)
with torch.no_grad():
    reference.model.norm.weight.mul_(0.8)


def response(row, early):
    length = ENDS[row] if early else T
    return drawn[row] if length == T else drawn[row][:length - 1] + [EOS] + [PAD] * (T - length)


def rounded(x):
    """To ten digits, and what is below 1e-12 to 0: the last bits differ from run to run."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [rounded(value) for value in x]
    if isinstance(x, float):
        return float(f"{x:.10g}") if abs(x) >= 1e-12 else 0.0
    return x


def norm(tensors):
    return torch.cat([t.flatten() for t in tensors]).norm().item()


def watched(early, accumulation=1, epochs=1, max_grad_norm=1.0):
    """One update: (the batch as the trainer sees it, its micro-batches, its optimizer steps)."""
    numpy.random.seed(1)  # of the trainer's permutation
    judge, batch, micro_batches, steps = copy.deepcopy(critic), {}, [], []
    own = {name: getattr(ppo_trainer, name) for name in ("batch_generation", "get_reward", "masked_mean", "masked_whiten")}

    def rows_of(ids):
        return [prompts.index(row) for row in ids[:, :PROMPT].tolist()]

    def batch_generation(model, queries, *_):
        made = torch.tensor([response(row, early) for row in rows_of(queries)])
        together = torch.cat((queries, made), 1)
        return together, ppo_trainer.forward(model, together, PAD).logits[:, PROMPT - 1:-1] / (1 + 1e-7)  # as its sampler's

    def get_reward(model, ids, *rest):
        return (None, row_scores[rows_of(ids)], None) if model is judge else own["get_reward"](model, ids, *rest)

    def whiten(values, mask, **options):
        seen = inspect.currentframe().f_back.f_locals
        batch.update(
            score=seen["scores"].tolist(), length=(seen["sequence_lengths"] + 1).tolist(),
            logprob=seen["logprobs"].tolist(), reference=seen["ref_logprobs"].tolist(), value=seen["values"].tolist(),
            reward=seen["rewards"].tolist(), advantage=values.tolist(), returns=seen["returns"].tolist(),
            prompts=seen["queries"].tolist(), responses=seen["responses"].tolist(),
        )
        out = own["masked_whiten"](values, mask, **options)
        batch["whitened"] = out.masked_fill(~mask, 0).tolist()
        return out

    calls = [0]

    def mean(values, mask, axis=None):
        out = own["masked_mean"](values, mask, axis)
        caller = inspect.currentframe().f_back
        if caller.f_code.co_name != "train":  # whitening takes means as well
            return out
        calls[0] += 1
        if calls[0] % 4 == 3:  # of the value loss, its clips, the policy loss, its clips
            seen = caller.f_locals
            micro = dict(
                rows=seen["micro_batch_inds"].tolist(), pg_loss=out.item(), vf_loss=seen["vf_loss"].item(),
                logprob=seen["new_logprobs"].tolist(), value=seen["vpred"].tolist(),
            )
            seen["new_logprobs"].register_hook(lambda grad: micro.update(logprob_grad=grad.tolist()))
            seen["vpred"].register_hook(lambda grad: micro.update(value_grad=grad.tolist()))
            micro_batches.append(micro)
        return out

    with tempfile.TemporaryDirectory() as folder:
        data = Dataset.from_list([dict(input_ids=row) for row in prompts])
        trainer = PPOTrainer(
            args=PPOConfig(
                output_dir=folder, per_device_train_batch_size=BATCH // accumulation, gradient_accumulation_steps=accumulation,
                num_mini_batches=1, num_ppo_epochs=epochs, total_episodes=BATCH, response_length=T, learning_rate=1e-3,
                lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=max_grad_norm, temperature=1.0, kl_coef=KL_COEF,
                gamma=GAMMA, lam=LAM, cliprange=CLIP, cliprange_value=VCLIP, vf_coef=VF, num_sample_generations=0, report_to=[],
                use_cpu=True, seed=1, save_strategy="no", bf16=False, gradient_checkpointing=False, stop_token="eos",
            ),
            processing_class=words, model=copy.deepcopy(policy), ref_model=copy.deepcopy(reference), reward_model=judge,
            value_model=copy.deepcopy(critic), train_dataset=data, eval_dataset=data,
        )
        step, nets = trainer.optimizer.step, dict(policy=trainer.policy_model, value=trainer.value_model)
        begin = {name: [p.detach().clone() for p in net.parameters()] for name, net in nets.items()}

        def watched_step(*args, **kwargs):
            if not trainer.accelerator.sync_gradients:
                return step(*args, **kwargs)
            report = {f"{name}_grad_norm": norm([p.grad for p in net.parameters()]) for name, net in nets.items()}
            step(*args, **kwargs)
            moments = trainer.optimizer.state
            for name, net in nets.items():
                report[f"{name}_change"] = norm([p.detach() - b for p, b in zip(net.parameters(), begin[name])])
                report[f"{name}_first_moment"] = norm([moments[p]["exp_avg"] for p in net.parameters()])
            steps.append(report)

        trainer.optimizer.step = watched_step
        for name, replacement in dict(batch_generation=batch_generation, get_reward=get_reward, masked_whiten=whiten, masked_mean=mean).items():
            setattr(ppo_trainer, name, replacement)
        try:
            trainer.train()
        finally:
            for name, function in own.items():
                setattr(ppo_trainer, name, function)
    assert len(steps) == epochs and len(micro_batches) == epochs * accumulation
    return rounded((batch, micro_batches, steps))


MAX_GRAD_NORM = 0.05
batch, micro_batches, steps = watched(early=True)
cut_batch, cut, _ = watched(early=True, accumulation=2)
full_batch, full, full_steps = watched(early=False, epochs=3, max_grad_norm=MAX_GRAD_NORM)
assert cut_batch == batch and full_steps == watched(early=False, epochs=3, max_grad_norm=1e9)[2]
for report, micro in zip(full_steps, full):
    report.update(pg_loss=micro["pg_loss"], vf_loss=micro["vf_loss"])
trainer_out = dict(
    tokens=T, kl_coef=KL_COEF, gamma=GAMMA, lam=LAM, cliprange=CLIP, cliprange_value=VCLIP, vf_coef=VF, learning_rate=1e-3,
    max_grad_norm=MAX_GRAD_NORM, reference_norm_factor=0.8, early=dict(batch=batch, micro_batches=micro_batches, cut=cut),
    full=dict(prompts=full_batch["prompts"], responses=full_batch["responses"], score=full_batch["score"], steps=full_steps),
)
(HERE / "ppo_trainer.json").write_text(json.dumps(trainer_out) + "\n")
print(batch["length"], batch["score"], full_steps, sep="\n")
