#include "actors/rpc/convert.h"
#include "actors/rpc/fields.h"

namespace praetor::rpc {

// One line an enumerator serves both directions.
#define PRAETOR_ENUM(Name, field, LIST)                                             \
  v1::Name to_proto(Name value) {                                                   \
    switch (value) { LIST(PRAETOR_ENUM_TO) }                                        \
    throw InternalError(field, ": ", static_cast<int>(value), " is no enumerator"); \
  }                                                                                 \
  Name from_proto(v1::Name value) {                                                 \
    switch (value) {                                                                \
      LIST(PRAETOR_ENUM_FROM)                                                       \
      default:                                                                      \
        break;                                                                      \
    }                                                                               \
    refuse(field, static_cast<int>(value), " is not known");                        \
  }
#define PRAETOR_ENUM_TO(ours, theirs) \
  case ours:                          \
    return theirs;
#define PRAETOR_ENUM_FROM(ours, theirs) \
  case theirs:                          \
    return ours;

#define LEASE_KINDS(X)                             \
  X(LeaseKind::kGenerate, v1::LEASE_KIND_GENERATE) \
  X(LeaseKind::kScore, v1::LEASE_KIND_SCORE)
PRAETOR_ENUM(LeaseKind, "kind", LEASE_KINDS)

#define PURPOSES(X)                               \
  X(Purpose::kPolicy, v1::PURPOSE_POLICY)         \
  X(Purpose::kOpponent, v1::PURPOSE_OPPONENT)     \
  X(Purpose::kGreedy, v1::PURPOSE_GREEDY)         \
  X(Purpose::kJudge, v1::PURPOSE_JUDGE)           \
  X(Purpose::kEvaluation, v1::PURPOSE_EVALUATION) \
  X(Purpose::kShuffle, v1::PURPOSE_SHUFFLE)       \
  X(Purpose::kInitialise, v1::PURPOSE_INITIALISE) \
  X(Purpose::kMinibatch, v1::PURPOSE_MINIBATCH)   \
  X(Purpose::kDirection, v1::PURPOSE_DIRECTION)
PRAETOR_ENUM(Purpose, "purpose", PURPOSES)

#define FINISH_REASONS(X)                            \
  X(FinishReason::kStop, v1::FINISH_REASON_STOP)     \
  X(FinishReason::kLength, v1::FINISH_REASON_LENGTH) \
  X(FinishReason::kCancelled, v1::FINISH_REASON_CANCELLED)
PRAETOR_ENUM(FinishReason, "finish", FINISH_REASONS)

#define ROLES(X)                      \
  X(Role::kRollout, v1::ROLE_ROLLOUT) \
  X(Role::kReward, v1::ROLE_REWARD)   \
  X(Role::kLearner, v1::ROLE_LEARNER) \
  X(Role::kRelay, v1::ROLE_RELAY)
PRAETOR_ENUM(Role, "role", ROLES)

#define ORDERS(X)                           \
  X(Orders::kGoOn, v1::ORDERS_GO_ON)        \
  X(Orders::kRegister, v1::ORDERS_REGISTER) \
  X(Orders::kLeave, v1::ORDERS_LEAVE)
PRAETOR_ENUM(Orders, "orders", ORDERS)

#define STEP_OUTCOMES(X)                                                  \
  X(StepOutcome::kNew, v1::STEP_OUTCOME_NEW)                              \
  X(StepOutcome::kReplayedIdentical, v1::STEP_OUTCOME_REPLAYED_IDENTICAL) \
  X(StepOutcome::kReplayedDifferent, v1::STEP_OUTCOME_REPLAYED_DIFFERENT)
PRAETOR_ENUM(StepOutcome, "outcome", STEP_OUTCOMES)

#define VOICE_KINDS(X)                               \
  X(VoiceKind::kPolicy, v1::VOICE_KIND_POLICY)       \
  X(VoiceKind::kCompanion, v1::VOICE_KIND_COMPANION) \
  X(VoiceKind::kMixture, v1::VOICE_KIND_MIXTURE)
PRAETOR_ENUM(VoiceKind, "kind", VOICE_KINDS)

void to_proto(const SampleId& from, v1::SampleId* to) {
  to->set_ordinal(from.ordinal);
  to->set_sample(from.sample);
}

SampleId from_proto(const v1::SampleId& from) {
  return {within("ordinal", from.ordinal(), 0, (int64_t{1} << 48) - 1),
          static_cast<int32_t>(within("sample", from.sample(), 0))};
}

void to_proto(const WeightVersion& from, v1::WeightVersion* to) {
  to->set_stage(from.stage);
  to->set_lineage(from.lineage);
  to->set_step(from.step);
  to->set_digest(name_field("digest", from.digest, true));
}

WeightVersion from_proto(const v1::WeightVersion& from) {
  return {from.stage(),
          within("lineage", from.lineage(), 0),
          within("step", from.step(), 0),
          name_field("digest", from.digest(), true)};
}

void to_proto(const Publication& from, v1::Publication* to) {
  in_field("version", [&] { to_proto(from.version, to->mutable_version()); });
  to->set_file(from.file);
  to->set_address(name_field("address", from.address, true));
  to->set_bytes(from.bytes);
  for (const Publication& other : from.companions)
    in_field("companions", [&] { to_proto(other, to->add_companions()); });
  to->set_epoch(from.epoch);
  to->set_broadcast(from.broadcast);
  for (const Publication& whole : from.base)
    in_field("base", [&] { to_proto(whole, to->mutable_base()); });
}

Publication from_proto(const v1::Publication& from) {
  Publication to{in_field("version", [&] { return from_proto(from.version()); }),
                 from.file(),
                 name_field("address", from.address(), true),
                 within("bytes", from.bytes(), 0),
                 {},
                 within("epoch", from.epoch(), 0),
                 within("broadcast", from.broadcast(), 0)};
  check_count("companions", from.companions_size(), 1);
  for (const v1::Publication& other : from.companions()) {
    if (other.companions_size() > 0) refuse("companions", "one has a companion itself");
    to.companions.push_back(in_field("companions", [&] { return from_proto(other); }));
  }
  if (from.has_base()) {
    const v1::Publication& whole = from.base();
    if (whole.has_base() || whole.companions_size() > 0)
      refuse("base", "it has a base or a companion itself");
    to.base.push_back(in_field("base", [&] { return from_proto(whole); }));
  }
  return to;
}

void to_proto(const Voice& from, v1::Voice* to) {
  to->set_kind(to_proto(from.kind));
  to->set_share(from.share);
}

Voice from_proto(const v1::Voice& from) {
  const Voice to{from_proto(from.kind()), finite("share", from.share())};
  if (to.kind != VoiceKind::kMixture ? to.share != 0 : !(to.share > 0 && to.share < 1))
    refuse("share", to.share, " fits only a mixture, and there inside (0, 1)");
  return to;
}

void to_proto(const SamplingParams& from, v1::SamplingParams* to) {
  to->set_max_new_tokens(from.max_new_tokens);
  to->set_temperature(from.temperature);
  to->set_top_k(from.top_k);
  to->set_top_p(from.top_p);
  to->set_min_p(from.min_p);
  to->set_repetition_penalty(from.repetition_penalty);
  tokens_to("stop_tokens", from.stop_tokens, to->mutable_stop_tokens());
  for (const std::string& text : from.stop_strings) to->add_stop_strings(text);
  to->set_ignore_eos(from.ignore_eos);
  for (const ProcessorSpec& processor : from.processors) {
    v1::Processor* added = to->add_processors();
    added->set_kind(name_field("processors", processor.kind));
    added->set_options(processor.options);
  }
  to->set_top_logprobs(from.top_logprobs);
}

SamplingParams from_proto(const v1::SamplingParams& from) {
  SamplingParams to;
  to.max_new_tokens = within("max_new_tokens", from.max_new_tokens(), 1, kMaxTokens);
  to.temperature = finite("temperature", from.temperature());
  if (to.temperature < 0) refuse("temperature", to.temperature, " is below 0");
  to.top_k = within("top_k", from.top_k(), 0);
  to.top_p = from.top_p();
  if (!(to.top_p > 0 && to.top_p <= 1)) refuse("top_p", to.top_p, " is outside (0, 1]");
  to.min_p = from.min_p();
  if (!(to.min_p >= 0 && to.min_p < 1)) refuse("min_p", to.min_p, " is outside [0, 1)");
  to.repetition_penalty = finite("repetition_penalty", from.repetition_penalty());
  if (to.repetition_penalty <= 0)
    refuse("repetition_penalty", to.repetition_penalty, " is not above 0");
  to.stop_tokens = tokens_from("stop_tokens", from.stop_tokens());
  check_count("stop_strings", from.stop_strings_size());
  for (const std::string& text : from.stop_strings()) {
    if (text.empty()) refuse("stop_strings", "one is empty");
    to.stop_strings.push_back(text);
  }
  to.ignore_eos = from.ignore_eos();
  check_count("processors", from.processors_size());
  for (const v1::Processor& processor : from.processors()) {
    if (processor.options().empty()) refuse("processors", "the options of one are empty");
    to.processors.push_back({name_field("processors", processor.kind()), processor.options()});
  }
  to.top_logprobs = within("top_logprobs", from.top_logprobs(), 0, kMostTopLogprobs);
  return to;
}

/// One a token, or none.
std::vector<int64_t> versions_from(const google::protobuf::RepeatedField<int64_t>& from,
                                   int64_t tokens) {
  same_length("versions", from.size(), tokens, true);
  return {from.begin(), from.end()};
}

void to_proto(const Generation& from, v1::Generation* to) {
  to->set_request(from.request);
  to->set_sample(from.sample);
  tokens_to("tokens", from.tokens, to->mutable_tokens());
  to->mutable_behavior_logprobs()->Assign(from.behavior_logprobs.begin(),
                                          from.behavior_logprobs.end());
  to->mutable_model_logprobs()->Assign(from.model_logprobs.begin(), from.model_logprobs.end());
  to->mutable_sampled_logprobs()->Assign(from.sampled_logprobs.begin(),
                                         from.sampled_logprobs.end());
  to->mutable_kept_masses()->Assign(from.kept_masses.begin(), from.kept_masses.end());
  to->set_text(from.text);
  to->set_finish(to_proto(from.finish));
  for (const TopLogprob& top : from.top_logprobs) {
    to->add_top_tokens(static_cast<uint32_t>(top.token));
    to->add_top_logprobs(top.logprob);
  }
  to->mutable_versions()->Assign(from.versions.begin(), from.versions.end());
}

Generation from_proto(const v1::Generation& from) {
  Generation to;
  to.request = within("request", from.request(), 0);
  to.sample = static_cast<int32_t>(within("sample", from.sample(), 0));
  to.tokens = tokens_from("tokens", from.tokens());
  const int64_t tokens = from.tokens_size();
  same_length("behavior_logprobs", from.behavior_logprobs_size(), tokens, false);
  same_length("model_logprobs", from.model_logprobs_size(), tokens, true);
  same_length("sampled_logprobs", from.sampled_logprobs_size(), tokens, true);
  same_length("kept_masses", from.kept_masses_size(), from.sampled_logprobs_size(), true);
  to.behavior_logprobs = floats(from.behavior_logprobs());
  to.model_logprobs = floats(from.model_logprobs());
  to.sampled_logprobs = floats(from.sampled_logprobs());
  to.kept_masses = floats(from.kept_masses());
  to.text = from.text();
  to.finish = from_proto(from.finish());
  const std::vector<int64_t> tops = tokens_from("top_tokens", from.top_tokens());
  const auto top_count = static_cast<int64_t>(tops.size());
  same_length("top_logprobs", from.top_logprobs_size(), top_count, false);
  if (top_count > 0 && (tokens == 0 || top_count % tokens != 0))
    refuse("top_tokens", top_count, " are no whole number for each of ", tokens, " tokens");
  for (int i = 0; i < from.top_logprobs_size(); ++i)
    to.top_logprobs.push_back({tops[static_cast<size_t>(i)], from.top_logprobs(i)});
  to.versions = versions_from(from.versions(), tokens);
  return to;
}

void to_proto(const Sample& from, v1::Sample* to) {
  to->set_prompt(from.prompt);
  to->set_response(from.response);
  to->set_metadata(from.metadata);
  to->set_response_tokens(from.response_tokens);
  to->set_finished(from.finished);
}

Sample from_proto(const v1::Sample& from) {
  return {from.prompt(),
          from.response(),
          from.metadata(),
          within("response_tokens", from.response_tokens(), 0, kMaxTokens),
          from.finished()};
}

namespace {

void to_proto(const PartScore& from, v1::PartScore* to) {
  to->set_name(name_field("name", from.name, true));
  to->set_weight(from.weight);
  if (from.score) to->set_score(*from.score);
  if (from.verdict) to->set_verdict(*from.verdict);
  to->set_reason(from.reason);
  to->set_error(from.error);
  to->set_latency_ms(from.latency_ms);
  to->set_not_applicable(from.not_applicable);
  to->set_cached(from.cached);
  to->set_retries(from.retries);
  for (const AttributeScore& one : from.attributes) {
    v1::AttributeScore* added = to->add_attributes();
    added->set_name(name_field("name", one.name));
    added->set_value(one.value);
    added->set_weight(one.weight);
  }
}

PartScore from_proto(const v1::PartScore& from) {
  PartScore to;
  to.name = name_field("name", from.name(), true);
  to.weight = finite("weight", from.weight());
  if (from.has_score()) to.score = finite("score", from.score());
  if (from.has_verdict()) to.verdict = from.verdict();
  to.reason = from.reason();
  to.error = from.error();
  to.latency_ms = finite("latency_ms", from.latency_ms());
  if (to.latency_ms < 0) refuse("latency_ms", to.latency_ms, " is below 0");
  to.not_applicable = from.not_applicable();
  to.cached = from.cached();
  to.retries = static_cast<int32_t>(within("retries", from.retries(), 0));
  for (const v1::AttributeScore& one : from.attributes()) {
    to.attributes.push_back({name_field("name", one.name()),
                             finite("value", one.value()),
                             finite("weight", one.weight())});
  }
  return to;
}

}  // namespace

void to_proto(const Score& from, v1::Score* to) {
  if (from.score) to->set_score(*from.score);
  for (const PartScore& part : from.parts) to_proto(part, to->add_parts());
  if (from.satisfied) to->set_satisfied(*from.satisfied);
  to->set_task(name_field("task", from.task, true));
  for (const Preference& one : from.preferences) {
    v1::Preference* added = to->add_preferences();
    added->set_rival(one.rival);
    added->set_probability(one.probability);
  }
}

Score from_proto(const v1::Score& from) {
  Score to;
  if (from.has_score()) to.score = finite("score", from.score());
  check_count("parts", from.parts_size());
  for (int i = 0; i < from.parts_size(); ++i)
    to.parts.push_back(in_field(str("parts[", i, "]"), [&] { return from_proto(from.parts(i)); }));
  if (from.has_satisfied()) to.satisfied = from.satisfied();
  to.task = name_field("task", from.task(), true);
  check_count("preferences", from.preferences_size());
  for (const v1::Preference& one : from.preferences()) {
    if (!(one.probability() >= 0 && one.probability() <= 1))
      refuse("preferences", "probability ", one.probability(), " is outside [0, 1]");
    to.preferences.push_back(
        {static_cast<int32_t>(within("preferences.rival", one.rival(), 0)), one.probability()});
  }
  return to;
}

void to_proto(const MemberInfo& from, v1::MemberInfo* to) {
  to->set_name(name_field("name", from.name));
  to->set_role(to_proto(from.role));
  for (const LeaseKind kind : from.serves) to->add_serves(to_proto(kind));
  to->set_host(name_field("host", from.host, true));
  to->set_pid(from.pid);
  to->set_rank(from.rank);
  to->set_threads(from.threads);
  to->set_incarnation(from.incarnation);
}

MemberInfo from_proto(const v1::MemberInfo& from) {
  MemberInfo to;
  to.name = name_field("name", from.name());
  to.role = from_proto(from.role());
  check_count("serves", from.serves_size(), 16);
  for (const int kind : from.serves())
    to.serves.push_back(
        in_field("serves", [&] { return from_proto(static_cast<v1::LeaseKind>(kind)); }));
  to.host = name_field("host", from.host(), true);
  to.pid = within("pid", from.pid(), 0);
  to.rank = static_cast<int32_t>(within("rank", from.rank(), 0));
  to.threads = static_cast<int32_t>(within("threads", from.threads(), 0));
  to.incarnation = from.incarnation();
  return to;
}

void to_proto(const RolloutRecord& from, v1::RolloutRecord* to) {
  to_proto(from.id, to->mutable_id());
  tokens_to("tokens", from.tokens, to->mutable_tokens());
  to->set_prompt_length(from.prompt_length);
  to->mutable_behavior_logprobs()->Assign(from.behavior_logprobs.begin(),
                                          from.behavior_logprobs.end());
  to->mutable_model_logprobs()->Assign(from.model_logprobs.begin(), from.model_logprobs.end());
  to->mutable_sampled_logprobs()->Assign(from.sampled_logprobs.begin(),
                                         from.sampled_logprobs.end());
  to->set_text(from.text);
  to->set_finish(to_proto(from.finish));
  to->set_weight_version(from.weight_version);
  to->set_worker(name_field("worker", from.worker, true));
  to->set_voice(from.voice);
  to->mutable_versions()->Assign(from.versions.begin(), from.versions.end());
}

RolloutRecord from_proto(const v1::RolloutRecord& from) {
  RolloutRecord to;
  to.id = in_field("id", [&] { return from_proto(from.id()); });
  to.tokens = tokens_from("tokens", from.tokens());
  to.prompt_length = within("prompt_length", from.prompt_length(), 0, from.tokens_size());
  const int64_t response = from.tokens_size() - to.prompt_length;
  same_length("behavior_logprobs", from.behavior_logprobs_size(), response, false);
  same_length("model_logprobs", from.model_logprobs_size(), response, true);
  same_length("sampled_logprobs", from.sampled_logprobs_size(), response, true);
  to.behavior_logprobs = floats(from.behavior_logprobs());
  to.model_logprobs = floats(from.model_logprobs());
  to.sampled_logprobs = floats(from.sampled_logprobs());
  to.text = from.text();
  to.finish = from_proto(from.finish());
  to.weight_version = within("weight_version", from.weight_version(), 0);
  to.worker = name_field("worker", from.worker(), true);
  to.voice = static_cast<int32_t>(within("voice", from.voice(), 0, 65535));
  to.versions = versions_from(from.versions(), response);
  return to;
}

void to_proto(const ScoreRecord& from, v1::ScoreRecord* to) {
  to_proto(from.id, to->mutable_id());
  to_proto(from.score, to->mutable_score());
  to->set_worker(name_field("worker", from.worker, true));
}

ScoreRecord from_proto(const v1::ScoreRecord& from) {
  return {in_field("id", [&] { return from_proto(from.id()); }),
          in_field("score", [&] { return from_proto(from.score()); }),
          name_field("worker", from.worker(), true)};
}

}  // namespace praetor::rpc
