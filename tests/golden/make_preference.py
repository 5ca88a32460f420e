"""Writes preference.json beside it: loss and gradient norm of three optimizer steps of TRL 1.12.0's trainers that learn from
preferences: NashMDTrainer, OnlineDPOTrainer, DPOTrainer and RewardTrainer.

All run whole (`trainer.train()`: their own tokenising, forwards, losses, backward, clipping and AdamW), the policies on
models/tied_mha, the reward model on models/classifier. Replaced are only, by recorded samples of full length and recorded
scores: NashMDTrainer's `_generate_completions` and `_compute_rewards`, OnlineDPOTrainer's `_generate` (its reward is a
function). The three steps take the same batch. Losses are what `training_step` returns: the logs round them. In float64, and
with coefficients under which no gradient of a first step is 0 to float32's rounding: Adam goes by its sign alone.
"""
import copy
import json
import pathlib
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer
from trl.experimental.nash_md import NashMDConfig, NashMDTrainer
from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

HERE = pathlib.Path(__file__).parent
N, P, T, STEPS = 4, 3, 6, 3
torch.manual_seed(4)
vocab = {f"w{i}": i for i in range(48)}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="w3")))
tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token = "w0", "w2", "w3"
prompts = torch.randint(4, 48, (N, P)).tolist()
# Two responses to each prompt: of the policy and its opponent, or of the policy twice. Online samples do not end themselves.
responses = torch.randint(4, 48, (N, 2, T)).tolist()
scores = torch.randn(N, 2).mul(1.5).round(decimals=2).tolist()
# Pairs of a data set end, and their lengths differ: chosen, rejected.
pairs = [[row[0] + [2], row[1][:T - k] + [2]] for k, row in enumerate(responses)]
margins = [0.5, 0.0, 1.0, 0.25]
policy = LlamaForCausalLM.from_pretrained(HERE / "models" / "tied_mha", dtype=torch.float64)
# The reference is another model, so that log-ratios are not 0 at the first step.
reference = copy.deepcopy(policy)
with torch.no_grad():
    reference.model.norm.weight.mul_(0.8)


def classifier():
    return LlamaForSequenceClassification.from_pretrained(HERE / "models" / "classifier", dtype=torch.float64)


def text(ids):
    return " ".join(f"w{i}" for i in ids)


def row_of(prompt):
    return [text(p) for p in prompts].index(prompt)


def train(kind, make, config, learning_rate, **options):
    """`make` gives the trainer for its settings; all of them have these."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(config(
            output_dir=folder, per_device_train_batch_size=N, gradient_accumulation_steps=1, max_steps=STEPS,
            learning_rate=learning_rate, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1e9, logging_steps=1,
            report_to=[], use_cpu=True, seed=1, save_strategy="no", bf16=False, gradient_checkpointing=False,
            disable_dropout=True, max_length=32, **options,
        ))
        losses, step = [], trainer.training_step

        def training_step(*args, **kwargs):
            loss = step(*args, **kwargs)
            losses.append(loss.item())
            return loss

        trainer.training_step = training_step
        trainer.train()
        norms = [float(row["grad_norm"]) for row in trainer.state.log_history if "grad_norm" in row]
        assert len(losses) == len(norms) == STEPS
        return dict(kind=kind, learning_rate=learning_rate, loss=losses, grad_norm=norms, **options)


def online(args, trainer_class, reward):
    data = Dataset.from_list([{"prompt": text(p)} for p in prompts])
    return trainer_class(model=copy.deepcopy(policy), ref_model=copy.deepcopy(reference), reward_funcs=reward, args=args,
                         train_dataset=data, processing_class=tokenizer)


def nash_md(args):
    trainer = online(args, NashMDTrainer, classifier())  # which is never asked

    def completions(model, asked):
        rows = [row_of(p) for p in asked["raw"]]
        assert asked["input_ids"].tolist() == [prompts[i] for i in rows]
        return tuple(torch.tensor([prompts[i] + responses[i][who] for i in rows]) for who in range(2))

    def rewards(model_data, mixture_data, context_length):
        rows = [row_of(p) for p in model_data["raw"]]
        return tuple(torch.tensor([scores[i][who] for i in rows]) for who in range(2))

    trainer._generate_completions, trainer._compute_rewards = completions, rewards
    return trainer


def online_dpo(args):
    def reward(prompts, completion_ids, **_):
        found = [(row_of(p), c) for p, c in zip(prompts, completion_ids)]
        return [scores[i][responses[i].index(c)] for i, c in found]

    trainer = online(args, OnlineDPOTrainer, reward)

    def generate(model, asked, images=None):
        rows = [row_of(p) for p in asked]
        ids = torch.tensor([prompts[i] for i in rows] * 2)
        made = torch.tensor([responses[i][who] for who in range(2) for i in rows])
        return ids, torch.ones_like(ids), made, torch.ones_like(made)

    trainer._generate = generate
    return trainer


def rows_of_pairs():
    return [{"prompt": text(p), "chosen": " " + text(w), "rejected": " " + text(l)} for p, (w, l) in zip(prompts, pairs)]


def dpo(args):
    trainer = DPOTrainer(model=copy.deepcopy(policy), ref_model=copy.deepcopy(reference), args=args,
                         train_dataset=Dataset.from_list(rows_of_pairs()), processing_class=tokenizer)
    check(trainer)
    return trainer


def reward_model(margin):
    def make(args):
        rows = [{**row, **({"margin": m} if margin else {})} for row, m in zip(rows_of_pairs(), margins)]
        trainer = RewardTrainer(model=classifier(), args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        check(trainer)
        return trainer
    return make


def check(trainer):
    """The trainer's tokens are those that are recorded."""
    for row, prompt, (chosen, rejected) in zip(trainer.train_dataset, prompts, pairs):
        head = row.get("prompt_ids", [])
        assert [head + row["chosen_ids"], head + row["rejected_ids"]] == [prompt + chosen, prompt + rejected], row


sampling = dict(temperature=1.0, max_new_tokens=T)
cases = [
    train("nash_md", nash_md, NashMDConfig, 1e-3, beta=0.1, mixture_coef=0.5, **sampling),
    train("nash_md", nash_md, NashMDConfig, 1e-3, beta=0.5, mixture_coef=0.125, **sampling),
    train("online_dpo", online_dpo, OnlineDPOConfig, 1e-3, beta=0.1, **sampling),
    train("dpo", dpo, DPOConfig, 1e-3, beta=0.1),
    train("dpo", dpo, DPOConfig, 1e-3, beta=0.5),
    train("reward_model", reward_model(False), RewardConfig, 1e-3, center_rewards_coefficient=None) | dict(margin=False),
    train("reward_model", reward_model(True), RewardConfig, 1e-3, center_rewards_coefficient=0.01) | dict(margin=True),
]
out = dict(
    prompts=prompts, responses=responses, scores=scores, pairs=pairs, margins=margins, reference_norm_factor=0.8, cases=cases
)
(HERE / "preference.json").write_text(json.dumps(out) + "\n")
for case in cases:
    print(case)
