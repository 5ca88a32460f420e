#include "rollout/session.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "rollout/draft.h"

namespace praetor {
namespace {

constexpr ModelSet kAllModels = {true, true};

// One bit a model.
PrefixTree::Models bits(const ModelSet& models) {
  PrefixTree::Models all = 0;
  for (size_t m = 0; m < models.size(); ++m) all |= models[m] ? 1U << m : 0U;
  return all;
}

}  // namespace

Session::Session(Engine& engine)
    : Session(engine, kAllModels, engine.most_blocks(kAllModels), /*keep_responses=*/true) {}

Session::Session(Engine& engine, const ModelSet& used, int64_t blocks, bool keep_responses)
    : engine_(engine),
      used_(used),
      keep_responses_(keep_responses),
      scheduler_({.max_sequences = engine.config_.max_sequences,
                  .max_step_tokens = engine.config_.max_step_tokens,
                  .block_size = engine.config_.block_size,
                  .blocks = blocks},
                 [this] { return next_sequence(); }),
      logits_(engine.models_, engine.sampler_) {
  if (engine.busy_) throw InvalidArgument("engine: it is in use: one session or call at a time");
  engine.make_room(blocks, used);
  engine.busy_ = true;
}

Session::~Session() {
  engine_.busy_ = false;
}

int64_t Session::submit(GenerationRequest request,
                        Listener listener,
                        std::optional<Clock::time_point> deadline) {
  const std::string what = str("request ", next_id_);
  engine_.check(request, what);
  engine_.check_fits(request, what, scheduler_.blocks().total());
  return submit(
      std::make_shared<const GenerationRequest>(std::move(request)), std::move(listener), deadline);
}

int64_t Session::submit(std::shared_ptr<const GenerationRequest> request,
                        Listener listener,
                        std::optional<Clock::time_point> deadline) {
  const int64_t id = next_id_++;
  const int32_t samples = request->samples;
  jobs_.emplace(id, Job{std::move(request), std::move(listener), deadline, samples});
  queued_.push_back(id);
  if (deadline) ++deadlines_;
  return id;
}

void Session::cancel(int64_t request) {
  to_cancel_.push_back(request);
}

void Session::weights_replaced(int64_t version, bool recompute) {
  version_ = version;
  scheduler_.forget_prefixes(recompute);
}

EngineStats Session::stats() const {
  EngineStats stats = stats_;
  stats.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  stats.preemptions = scheduler_.preemptions();
  stats.peak_blocks = scheduler_.blocks().peak();
  stats.adopted_rows = scheduler_.adopted_rows();
  return stats;
}

bool Session::step() {
  const c10::NoGradGuard no_grad;
  cancel_due();
  const Scheduler::Step& step = scheduler_.plan();
  if (step.slices.empty()) return false;
  for (const Scheduler::Copy& copy : step.copies) {
    // In every cache of the session: whose voice wrote the block does not matter, the ids are one.
    for (size_t m = 0; m < engine_.models_.size(); ++m) {
      if (used_[m]) engine_.models_[m]->copy_block(copy);
    }
  }
  gather_rows(step);
  logits_.compute();
  ++stats_.steps;
  if (engine_.on_step_) engine_.on_step_();
  if (!ready_.empty()) sample();
  return true;
}

void Session::cancel_due() {
  if (deadlines_ > 0) {
    const auto now = Clock::now();
    for (const auto& [id, job] : jobs_) {
      if (job.deadline && *job.deadline <= now) to_cancel_.push_back(id);
    }
  }
  // A listener may cancel others.
  for (size_t i = 0; i < to_cancel_.size(); ++i) abandon(to_cancel_[i]);
  to_cancel_.clear();
}

// Every sample that has not ended is delivered as it stands.
void Session::abandon(int64_t id) {
  const auto job = jobs_.find(id);
  if (job == jobs_.end()) return;
  std::vector<std::unique_ptr<Sequence>> begun = scheduler_.remove(id);
  const auto queued = std::find(queued_.begin(), queued_.end(), id);
  if (queued != queued_.end()) {
    queued_.erase(queued);
    begun.push_back(new_sequence(id, 0));
    begun.back()->forks = job->second.request->samples - 1;
  }
  // Forks that were not yet split off have no token.
  std::vector<std::unique_ptr<Sequence>> forks;
  for (const auto& s : begun) {
    for (int32_t k = 1; k <= s->forks; ++k) forks.push_back(new_sequence(id, k));
  }
  for (auto* const part : {&begun, &forks}) {
    for (const auto& s : *part) deliver(id, s->response->abandon(FinishReason::kCancelled));
  }
}

std::unique_ptr<Sequence> Session::new_sequence(int64_t id, int32_t sample) {
  const Job& job = jobs_.at(id);
  const GenerationRequest& r = *job.request;
  const int64_t limit = engine_.response_limit(r);
  auto s = std::make_unique<Sequence>();
  s->request = id;
  s->sample = sample;
  s->tokens.reserve(r.prompt.size() + static_cast<size_t>(limit));
  s->tokens = r.prompt;
  s->models = bits(models_of(r.voice));
  s->root = PrefixTree::root(engine_.rotations(s->models, s->length()));
  s->keep = s->length() + (keep_responses_ ? limit : 0);
  s->response = std::make_unique<Response>(r,
                                           id,
                                           sample,
                                           engine_.tokenizer_,
                                           limit,
                                           engine_.vocab_size(),
                                           engine_.processors_.start(r.params, id),
                                           static_cast<bool>(job.listener.on_token));
  return s;
}

std::unique_ptr<Sequence> Session::next_sequence() {
  if (queued_.empty()) return nullptr;
  const int64_t id = queued_.front();
  queued_.pop_front();
  auto s = new_sequence(id, 0);
  s->forks = jobs_.at(id).request->samples - 1;
  return s;
}

// A sequence's rows go to the models that its voice needs.
void Session::gather_rows(const Scheduler::Step& step) {
  for (const auto& model : engine_.models_) model->clear_rows();
  ready_.clear();
  voiced_.clear();
  for (const auto& [s, count] : step.slices) {
    const int64_t pending = s->pending();
    (pending == 1 ? stats_.decode_rows : stats_.prefill_rows) += count;
    const Voice& voice = jobs_.at(s->request).request->voice;
    const ModelSet needed = models_of(voice);
    VoicedRow voiced{.share = voice.share};
    for (size_t m = 0; m < needed.size(); ++m) {
      if (needed[m]) voiced.row[m] = engine_.models_[m]->add_rows(*s, count);
    }
    s->computed += std::min(count, pending);
    if (s->pending() > 0) continue;
    const int64_t drafts = count - pending;
    ready_.push_back({s, static_cast<int64_t>(voiced_.size()), drafts});
    stats_.drafted += drafts;
    for (int64_t i = 0; i <= drafts; ++i) {
      voiced_.push_back(voiced);
      for (int64_t& row : voiced.row) row += row < 0 ? 0 : 1;
    }
  }
}

// Draws for every sequence that is ready, the forks of a fresh prompt from its one row.
void Session::sample() {
  draws_.clear();
  forks_.clear();
  met_.clear();
  for (const Ready& ready : ready_) {
    Sequence* s = ready.sequence;
    draws_.push_back(s->response->next_row(ready.row));
    for (int32_t k = 1; k <= s->forks; ++k) {
      forks_.push_back(new_sequence(s->request, k));
      draws_.push_back(forks_.back()->response->next_row(ready.row));
    }
  }
  logits_.draw(voiced_, draws_, drawn_);
  size_t draw = 0;
  size_t fork = 0;
  for (const Ready& ready : ready_) {
    Sequence* s = ready.sequence;
    const SampledToken own = drawn_[draw++];
    // Forks share the parent's blocks, so they are made before it can end.
    for (; s->forks > 0; --s->forks) add_fork(*s, std::move(forks_[fork++]), drawn_[draw++]);
    if (settle(ready, own)) met_.push_back({s, ready.row + 1, ready.drafts - 1});
  }
  while (!met_.empty()) sample_drafts();
}

// Sequences whose guess was drawn have the next token's logits already.
void Session::sample_drafts() {
  ready_.swap(met_);
  met_.clear();
  draws_.clear();
  for (const Ready& ready : ready_) draws_.push_back(ready.sequence->response->next_row(ready.row));
  logits_.draw(voiced_, draws_, drawn_);
  stats_.accepted += static_cast<int64_t>(ready_.size());
  for (size_t i = 0; i < ready_.size(); ++i) {
    ++ready_[i].sequence->computed;
    if (settle(ready_[i], drawn_[i])) {
      met_.push_back({ready_[i].sequence, ready_[i].row + 1, ready_[i].drafts - 1});
    }
  }
}

// Records the token that was drawn. True when it was guessed, so that another can be drawn in this
// step.
bool Session::settle(const Ready& ready, const SampledToken& sampled) {
  Sequence* s = ready.sequence;
  const auto guessed = s->draft.size() - static_cast<size_t>(ready.drafts);
  const bool met = ready.drafts > 0 && s->draft[guessed] == sampled.token;
  if (advance(*s, sampled)) {
    const std::unique_ptr<Sequence> ended = scheduler_.finish(s);
    deliver(ended->request, ended->response->take());
    return false;
  }
  if (outgrew_cache(*s)) {
    scheduler_.add(restarted(scheduler_.finish(s)));
    return false;
  }
  if (!met) guess(*s, static_cast<int64_t>(guessed));
  return met;
}

// A draft that was met to its end makes the next one longer, one that was not shorter.
void Session::guess(Sequence& s, int64_t met) {
  const int64_t longest = engine_.config_.draft_tokens;
  if (longest == 0) return;
  const auto drafted = static_cast<int64_t>(s.draft.size());
  if (s.draft_limit == 0) s.draft_limit = longest;
  if (drafted > 0) s.draft_limit = met == drafted ? std::min(longest, 2 * drafted) : met + 1;
  // The last token of a response needs no row of its own.
  const int64_t most = std::min({s.draft_limit,
                                 s.response->tokens_left() - 1,
                                 engine_.tokens_before_switch(s.models, s.length())});
  guess_next(s.tokens, most, s.draft);
}

void Session::add_fork(const Sequence& parent,
                       std::unique_ptr<Sequence> fork,
                       const SampledToken& first) {
  fork->computed = parent.computed;
  if (advance(*fork, first)) {
    deliver(fork->request, fork->response->take());
  } else if (outgrew_cache(*fork)) {
    fork->computed = 0;
    scheduler_.add(restarted(std::move(fork)));
  } else {
    scheduler_.fork(parent, std::move(fork));
  }
}

// True when the last token made the sequence longer than its model's switch length: the keys in
// the cache are of the shorter sequence's rotation, and all are computed again.
bool Session::outgrew_cache(const Sequence& s) const {
  return engine_.rotations(s.models, s.length()) != engine_.rotations(s.models, s.length() - 1);
}

std::unique_ptr<Sequence> Session::restarted(std::unique_ptr<Sequence> s) const {
  s->root = PrefixTree::root(engine_.rotations(s->models, s->length()));
  return s;
}

bool Session::advance(Sequence& s, const SampledToken& sampled) {
  ++stats_.tokens;
  s.tokens.push_back(sampled.token);
  const bool ended = s.response->push(sampled, version_);
  const Listener& listener = jobs_.at(s.request).listener;
  if (listener.on_token) listener.on_token(s.response->so_far(), s.response->new_text());
  return ended;
}

void Session::deliver(int64_t id, Generation&& made) {
  const auto place = jobs_.find(id);
  Job& job = place->second;
  stats_.responses += made.finish == FinishReason::kCancelled ? 0 : 1;
  job.listener.on_finish(std::move(made));
  if (--job.open > 0) return;
  if (job.deadline) --deadlines_;
  jobs_.erase(place);
}

}  // namespace praetor
