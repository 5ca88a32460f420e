#include "core/collective/roll_call.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string_view>
#include <utility>

#include "core/base/str.h"
#include "core/collective/membership.h"

namespace praetor {
namespace {

/// A wait that is shorter is nobody's business.
constexpr std::chrono::milliseconds kPatience{10};
/// Who has asked is kept informed that long.
constexpr std::chrono::seconds kInformed{20};
/// So much of that a question must still have before it, to count for the next who would ask: no
/// rank asks longer before its deadline.
constexpr std::chrono::seconds kReserve{12};
/// A rank that waits answers within that.
constexpr std::chrono::milliseconds kAnswering{100};

/// How a word begins; a round and a line for each wait, or a reason, follow.
constexpr char kQuestion = '?', kAnswer = '!', kGivenUp = 'x';

/// -1 where a word was cut off.
int64_t number_in(std::string_view text) {
  int64_t out = -1;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

std::string name_of(const std::string& line) {
  return line.substr(0, line.find('\t'));
}

/// "barrier #3 over mpi in step 2 and all_gather #1 of 4 float32 over nccl".
std::string told(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) {
    const int64_t step = number_in(std::string_view(line).substr(line.find('\t') + 1));
    out += (out.empty() ? "" : " and ") + name_of(line);
    if (step >= 0) out += str(" in step ", step);
  }
  return out;
}

}  // namespace

RollCall::Wait::Wait(RollCall& roll, std::function<std::string()> what, int64_t step)
    : roll_(roll), what_(std::move(what)), step_(step) {}

RollCall::Wait::~Wait() {
  if (place_) roll_.leave(*place_);
}

bool RollCall::Wait::attend() {
  if (!roll_.channel_) return false;
  if (!place_) {
    if (Clock::now() - start_ < kPatience) return false;
    place_ = roll_.enter(str(what_(), '\t', step_));
  }
  roll_.hear();
  return true;
}

RollCall::RollCall(int32_t rank, int32_t world_size, std::shared_ptr<SideChannel> channel)
    : rank_(rank), world_size_(world_size), channel_(std::move(channel)) {}

std::list<std::string>::iterator RollCall::enter(const std::string& line) {
  const std::lock_guard lock(mutex_);
  const auto place = waits_.insert(waits_.end(), line);
  answer();
  return place;
}

void RollCall::leave(std::list<std::string>::iterator place) {
  const std::lock_guard lock(mutex_);
  waits_.erase(place);
  answer();
}

void RollCall::answer() {
  const auto now = Clock::now();
  std::erase_if(questions_, [&](auto& one) { return now - one.second.heard > kInformed; });
  for (const auto& [rank, question] : questions_) answer(rank, question.round);
}

void RollCall::answer(int32_t rank, int64_t round) {
  std::string text = str(kAnswer, round);
  for (const std::string& line : waits_) text += '\n' + line;
  channel_->tell(rank, text);
}

void RollCall::hear() {
  const std::lock_guard lock(mutex_);
  for (const SideChannel::Word& word : channel_->heard()) {
    const std::string rest = word.text.substr(1);
    if (word.text[0] == kGivenUp) {
      if (!given_up_) given_up_ = SideChannel::Word{word.from, rest};
      continue;
    }
    std::istringstream lines(rest);
    std::string line;
    std::getline(lines, line);
    const int64_t round = number_in(line);
    if (word.text[0] == kQuestion) {
      questions_[word.from] = {round, Clock::now()};
      answer(word.from, round);
    } else if (round == round_) {
      std::vector<std::string>& waits = answers_[word.from];
      waits.clear();
      while (std::getline(lines, line)) {
        if (line.find('\t') != std::string::npos) waits.push_back(line);  // else it was cut
      }
    }
  }
}

bool RollCall::ask(std::chrono::milliseconds deadline) {
  if (!channel_) return true;
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  // Two groups of a rank may wait side by side. Whom the others keep informed need not ask again.
  if (!asked_ || now - *asked_ >= kInformed - kReserve) ask_all();
  return now - *asked_ >= std::min(kAnswering, deadline / 4);
}

void RollCall::ask_anew() {
  if (!channel_) return;
  const std::lock_guard lock(mutex_);
  ask_all();
}

void RollCall::ask_all() {
  ++round_;
  answers_.clear();
  asked_ = Clock::now();
  for (int32_t rank = 0; rank < world_size_; ++rank) {
    if (rank != rank_) channel_->tell(rank, str(kQuestion, round_));
  }
}

bool RollCall::waits(int32_t rank) const {
  const auto found = answers_.find(rank);
  return found != answers_.end() && !found->second.empty();
}

std::vector<int32_t> RollCall::not_waiting(const std::vector<int32_t>& ranks) const {
  const std::lock_guard lock(mutex_);
  std::vector<int32_t> out;
  for (const int32_t rank : ranks) {
    if (!waits(rank)) out.push_back(rank);
  }
  return out;
}

std::string RollCall::waits_of(const std::vector<int32_t>& ranks) const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const int32_t rank : ranks) {
    if (waits(rank))
      out += str(out.empty() ? "" : "; ", "rank ", rank, " waits in ", told(answers_.at(rank)));
  }
  return out;
}

bool RollCall::all_answered(const std::vector<int32_t>& ranks) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::all_of(ranks, [&](int32_t rank) { return answers_.contains(rank); });
}

std::string RollCall::missing(const std::string& what, const std::vector<int32_t>& ranks) const {
  const std::lock_guard lock(mutex_);
  std::vector<int32_t> silent;
  std::string others;
  for (const int32_t rank : ranks) {
    const auto found = answers_.find(rank);
    if (found == answers_.end()) {
      silent.push_back(rank);
      continue;
    }
    const std::vector<std::string>& waits = found->second;
    if (std::ranges::find(waits, what, name_of) != waits.end()) continue;
    others +=
        str("; rank ", rank, waits.empty() ? " waited and has gone on" : " waits in ", told(waits));
  }
  if (silent.empty()) return others.empty() ? "" : others.substr(2);
  return str(ranks_text(silent), silent.size() == 1 ? " does" : " do", " not answer", others);
}

void RollCall::give_up(const std::string& reason) {
  if (!channel_) return;
  for (int32_t rank = 0; rank < world_size_; ++rank) {
    if (rank != rank_) channel_->tell(rank, kGivenUp + reason);
  }
}

std::optional<SideChannel::Word> RollCall::given_up() const {
  const std::lock_guard lock(mutex_);
  return given_up_;
}

}  // namespace praetor
