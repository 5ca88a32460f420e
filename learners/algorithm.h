#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/data/dataset.h"
#include "core/data/direction.h"
#include "core/data/experience.h"
#include "core/data/pair_question.h"
#include "core/model/generator.h"
#include "learners/algorithms/aggregate.h"
#include "learners/optim/optimizer_config.h"

namespace praetor {

/// Names of design.md §6 with their values, in the order they are shown.
using Metrics = std::vector<std::pair<std::string, double>>;

/// The metrics by which a stage is judged.
struct Headline {
  std::string quality;  ///< of an evaluation; picks the best checkpoint
  bool more_is_better = true;
  std::string curve;  ///< of a step; what the summary draws
};

enum class CriticKind { kNone, kSeparate, kShared };

/// A frozen network that follows the policy: theta_anchor <- decay theta_anchor + (1 - decay) theta
/// after every `every`-th update.
struct AnchorPlan {
  int64_t every = 1;  ///< updates, >= 1
  double decay = 0;   ///< [0, 1); 0: a copy
};

/// A gate over the attributes of a frozen model, which alone is trained
/// (core/model/attribute_gate.h).
struct GatePlan {
  int64_t layers = 3;       ///< hidden ones, >= 0
  int64_t width = 1024;     ///< of each, >= 1
  std::string verbosity;    ///< attribute that is taken out of the others; empty: none
  int64_t reference = 512;  ///< rows of data.train by which that is done, >= 1
};

/// The head of a reward model whose backbone is frozen is solved for by ridge regression
/// (learners/algorithms/ridge.h); nothing is trained.
struct ProbePlan {
  std::vector<double> alphas = {0.01, 0.1, 1, 10, 100, 1000};  ///< to choose from, > 0
  double held_out = 0.2;  ///< (0, 1) share of the rows by which one of several is chosen
};

/// Networks an algorithm needs; the learner holds them all.
struct ModelPlan {
  bool policy = true;      ///< trained
  bool reference = false;  ///< a frozen copy, never refreshed
  /// Offline: the examples carry the reference's log-probabilities (reference_rows.h); none is
  /// held.
  bool reference_in_rows = false;
  std::optional<AnchorPlan> anchor;       ///< starts as a copy of the policy
  CriticKind critic = CriticKind::kNone;  ///< kShared: a value head on the policy's hidden states
  std::string critic_init =
      "policy";  ///< "policy": the policy's backbone and a fresh head; "reward": a reward model
  OptimizerConfig critic_optimizer;  ///< of a separate critic
  bool reward_model = false;         ///< a scalar model is what is trained, and there is no policy
  std::optional<GatePlan> gate;      ///< of a reward model with attributes, which is frozen then
  std::optional<ProbePlan> probe;    ///< of a reward model with attributes
};

/// Responses to each prompt beside the policy's own. The companion of a voice is the anchor where
/// the plan has one, else the reference.
struct VoicePlan {
  Voice voice;
  int64_t samples = 1;     ///< to each prompt
  bool greedy = false;     ///< at temperature 0
  bool trained = false;    ///< the learner computes its log-probabilities, and the loss may use it
  bool from_data = false;  ///< not drawn: the row's own answer, its field `baseline`
};

/// What a step consumes.
struct SamplePlan {
  RowForm rows = RowForm::kPrompt;  ///< kPrompt: online; else the rows are the training data
  /// Of pairs: they are not read as chosen and rejected but asked about, in both orders.
  std::optional<PairQuestion> question;
  /// Of completions: fields of a row with its labels, one number a head of the reward model.
  std::vector<std::string> labels;
  /// Of prompts: each is asked in a direction of preference of its own.
  std::optional<DirectionPlan> direction;
  /// Prompts, examples or pairs of one update; 0: every row of the file, in the only one.
  int64_t prompts_per_step = 64;
  int64_t samples_per_prompt = 1;  ///< responses the current policy gives to each prompt
  /// Where prompts of a task get another number of them.
  std::map<std::string, int64_t> samples_by_task;
  std::vector<VoicePlan> others;  ///< their samples are numbered on from the policy's
  /// Responses to a prompt, of all voices; at most.
  int64_t total_samples() const {
    int64_t out = samples_per_prompt;
    for (const VoicePlan& other : others) out += other.samples;
    return out;
  }
};

enum class ScorePlan {
  kNone,
  kScalar,
  kPairs,   ///< also the preference of each two samples of a prompt
  kRivals,  ///< also the preference of each policy's sample over each of the other voices'
};

/// Passes over the data of one update.
struct UpdatePlan {
  int64_t epochs = 1;
  int64_t minibatches = 1;  ///< optimizer steps of an epoch, at most
  double target_kl =
      0;  ///< > 0: the loop ends before a step whose mean k3 to the proximal policy is above it
  bool entropy = false;  ///< the loss wants entropies
  bool rival = false;    ///< of pairs with one target each: the loss wants the other's answer too
};

/// The samples of one prompt, scored.
struct Group {
  int64_t prompt_ordinal = 0;
  std::vector<double> scores;
  std::vector<bool> finished;
};

/// What only the learner can tell build_batch.
struct BatchContext {
  at::Tensor bootstrap_value;  ///< [N] critic at the last token of each sequence; undefined without
                               ///< a critic
  int64_t max_new_tokens = 0;  ///< of a response, as it was sampled
};

/// What build_batch adds to the experience.
struct Batch {
  /// [R] bool, response tokens that enter the loss; undefined: all of the units' sequences.
  at::Tensor mask;
  Metrics metrics;
  /// Sequences that the loss must see side by side, in the order given (a chosen one before its
  /// rejected one). Absent: every trained sequence by itself.
  std::optional<std::vector<std::vector<int64_t>>> units;
  at::Tensor constants;  ///< [N,c] float64: what the loss wants to know of a sequence; or undefined
};

/// One micro-batch as the loss sees it: r response (or target) tokens of n whole sequences.
/// Networks that the plan does not name, and constants that build_batch did not make, are
/// undefined.
struct MicroBatch {
  int64_t sequences = 0;     ///< n
  at::Tensor sequence_of;    ///< [r] int64, ascending, 0 .. n-1
  at::Tensor mask;           ///< [r] bool
  at::Tensor logprob;        ///< [r] policy in training; carries the gradient
  at::Tensor entropy;        ///< [r] carries the gradient
  at::Tensor rival_logprob;  ///< [r] of the pair's other target in place of this one; gradient
  at::Tensor value;          ///< [r] critic in training; carries the gradient
  at::Tensor score;  ///< [n] reward model in training (pairs: chosen, rejected, chosen, ...); [n,A]
                     ///< of several attributes
  at::Tensor gate;   ///< [n,A] weights that a gate gives; carries the gradient
  at::Tensor behavior_logprob;  ///< [r] constant, as are all below
  at::Tensor proximal_logprob;
  at::Tensor reference_logprob;
  at::Tensor old_value;
  at::Tensor anchor_logprob;
  at::Tensor advantage;
  at::Tensor returns;
  at::Tensor margin;          ///< [n / 2] of pairs
  at::Tensor constants;       ///< [n,c]; of rows of a file: their labels, NaN where one is missing
  Denominators denominators;  ///< of the optimizer step
};

/// A number to report: means are sum(total) / sum(weight) over the micro-batches of an update;
/// kExpMean is exp of that. The loop itself reads "policy/approx_kl" (for target_kl) and
/// "policy/ratio_error", the mean of |r - 1|, which it wants near 0 at the first minibatch.
struct Statistic {
  enum class Kind { kMean, kMax, kMin, kSum, kExpMean };
  std::string name;
  double total = 0;
  double weight = 1;
  Kind kind = Kind::kMean;
};

struct LossResult {
  at::Tensor loss;  ///< scalar; the sum over the step's micro-batches is the step's loss
  std::vector<Statistic> statistics;
};

/// What a reward model says of held-out rows, and what they are labelled with.
struct LabelledScores {
  at::Tensor score;             ///< [N,A] float64
  at::Tensor labels;            ///< [N,A] float64, NaN where one is missing
  std::vector<int64_t> prompt;  ///< [N] equal where the rows' prompts are
};

/// A method, in seven hooks; the learner owns it and calls them on one thread. Hooks that most
/// methods share have defaults. State that a resumed run needs goes through state_json.
class Algorithm {
 public:
  virtual ~Algorithm() = default;

  virtual std::string name() const = 0;
  /// 1. Networks.
  virtual ModelPlan models() const { return {}; }
  /// 2. Rows or samples of one step.
  virtual SamplePlan sample_plan() const { return {}; }
  /// 3. What a reward worker must give for each sample.
  virtual ScorePlan score_plan() const { return ScorePlan::kScalar; }
  /// 4. Nothing to keep the group, else why it is dropped and sampled anew.
  virtual std::optional<std::string> accept(const Group& /*group*/) const { return std::nullopt; }
  /// 5. Online: scored rollouts to rewards, advantages and returns (written to `experience`) and
  /// the mask. Default: every response token counts.
  virtual Batch build_batch(Experience& experience, const BatchContext& context);
  /// 6. A pure function of tensors: the micro-batch's share of the step's loss. With a separate
  /// critic a term of `value` and one of the rest, added: the learner has the gradient of the
  /// policy's first, with `old_value` as the value, so that one network's graph lives at a time.
  virtual LossResult loss(const MicroBatch& batch) const = 0;
  /// 7. Controllers and refreshes, once an update.
  virtual void after_step() {}

  virtual UpdatePlan update_plan() const { return {}; }
  /// Default: that of methods that learn from scored rollouts.
  virtual Headline headline() const { return {"eval/score", true, "reward/mean"}; }
  bool online() const { return sample_plan().rows == RowForm::kPrompt; }
  /// Its loss can weigh samples of older weights against the policy at the start of the update
  /// (section `mismatch`); others learn from samples of the present policy alone.
  virtual bool corrects_staleness() const { return false; }

  /// Of labels (SamplePlan), in the score of the reward model.
  virtual std::vector<double> label_weights() const { return {}; }
  /// Figures of held-out rows with labels.
  virtual Metrics evaluate_labels(const LabelledScores& /*rows*/) const { return {}; }
  /// Figures of the scored samples of an evaluation, besides those of every method.
  virtual Metrics evaluate_samples(const Experience& /*experience*/) const { return {}; }

  /// Everything that changes from update to update, as JSON.
  virtual std::string state_json() const { return "{}"; }
  /// @throws CheckpointError when `text` is not what state_json gave
  virtual void load_state_json(const std::string& /*text*/) {}
};

/// What an algorithm is made from.
struct AlgorithmContext {
  YamlReader config;  ///< its section, "ppo:" of a stage; errors gather there
};

/// Names of all algorithms, in the order of registry.cpp.
const std::vector<std::string>& algorithm_names();
/// @throws InvalidArgument for an unknown name, with the nearest known one
std::unique_ptr<Algorithm> make_algorithm(const std::string& name, const AlgorithmContext& context);

}  // namespace praetor
