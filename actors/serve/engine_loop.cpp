#include "actors/serve/engine_loop.h"

#include <algorithm>
#include <exception>

#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor::serve {
namespace {

EngineStats sum(EngineStats a, const EngineStats& b) {
  a.responses += b.responses;
  a.tokens += b.tokens;
  a.seconds += b.seconds;
  a.steps += b.steps;
  a.prefill_rows += b.prefill_rows;
  a.decode_rows += b.decode_rows;
  a.adopted_rows += b.adopted_rows;
  a.preemptions += b.preemptions;
  a.peak_blocks = std::max(a.peak_blocks, b.peak_blocks);
  return a;
}

TokenPiece piece_of(const Generation& so_far, int64_t request, std::string_view text) {
  TokenPiece piece{.request = request,
                   .sample = so_far.sample,
                   .text = std::string(text),
                   .token = so_far.tokens.back(),
                   .logprob = so_far.model_logprobs.back()};
  const size_t each = so_far.top_logprobs.size() / so_far.tokens.size();
  piece.top.assign(so_far.top_logprobs.end() - static_cast<std::ptrdiff_t>(each),
                   so_far.top_logprobs.end());
  return piece;
}

}  // namespace

std::optional<Event> Call::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  if (!pushed_.wait_for(lock, wait, [this] { return !events_.empty(); })) return std::nullopt;
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void Call::leave() {
  const std::lock_guard lock(mutex_);
  left_ = true;
  events_.clear();
}

void Call::push(Event event, bool last) {
  {
    const std::lock_guard lock(mutex_);
    if (left_) return;
    events_.push_back(std::move(event));
    left_ = last;
  }
  pushed_.notify_one();
}

EngineLoop::EngineLoop(Engine& engine, int64_t most_open)
    : engine_(engine), most_open_(most_open), thread_([this] { run(); }) {}

EngineLoop::~EngineLoop() {
  stop();
}

void EngineLoop::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ordered_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<Call> EngineLoop::submit(std::vector<GenerationRequest> requests,
                                         bool streamed,
                                         std::optional<Session::Clock::time_point> deadline) {
  const auto count = static_cast<int64_t>(requests.size());
  auto call = std::make_shared<Call>();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || open_ + count > most_open_) return nullptr;
    open_ += count;
    orders_.push_back({call, std::move(requests), streamed, deadline});
  }
  ordered_.notify_one();
  return call;
}

EngineLoop::Stats EngineLoop::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.queued = static_cast<int64_t>(orders_.size());
  return stats;
}

// Until the loop stops, or a step throws, which ends the session and nothing else.
void EngineLoop::run() {
  while (true) {
    Session session(engine_);
    try {
      while (take_orders(session)) {
        cancel_left(session);
        session.step();
        note(session);
      }
      fail_all("the server is stopping");
      return;
    } catch (const std::exception& failure) {
      log::error(str("serve: a step of the engine failed: ", failure.what()));
      note(session);
      before_ = stats_.engine;
      fail_all(str("generation failed: ", failure.what()));
      const auto* known = dynamic_cast<const Error*>(&failure);
      const std::lock_guard lock(mutex_);
      ++stats_.failures;
      stats_.lost = stats_.lost || (known && known->code() == ErrorCode::kUnavailable);
    }
  }
}

// Begins what was ordered; waits when there is nothing to do. False: the loop is to end.
bool EngineLoop::take_orders(Session& session) {
  std::deque<Order> orders;
  {
    std::unique_lock lock(mutex_);
    if (session.open() == 0) {
      ordered_.wait(lock, [this] { return stopping_ || !orders_.empty(); });
    }
    if (stopping_) return false;
    orders.swap(orders_);
  }
  for (Order& order : orders) begin(session, std::move(order));
  return true;
}

void EngineLoop::begin(Session& session, Order order) {
  const std::shared_ptr<Call>& call = order.call;
  const auto give_up = [&](Event why) {
    for (const int64_t id : call->ids_) session.cancel(id);
    call->push(std::move(why), /*last=*/true);
  };
  int64_t number = 0;
  try {
    for (GenerationRequest& request : order.requests) {
      Listener listener;
      if (order.streamed) {
        listener.on_token = [call, number](const Generation& so_far, std::string_view text) {
          call->push(piece_of(so_far, number, text));
        };
      }
      listener.on_finish = [call, number](Generation&& made) {
        made.request = number;
        call->push(std::move(made));
      };
      call->ids_.push_back(session.submit(std::move(request), std::move(listener), order.deadline));
      ++number;
    }
    call->push(Accepted{});
  } catch (const InvalidArgument& refusal) {
    give_up(Refused{refusal.what()});
  } catch (const std::exception& failure) {
    give_up(Failed{str("generation failed: ", failure.what())});
  }
  if (!call->ids_.empty()) calls_.push_back(call);
  const std::lock_guard lock(mutex_);
  // Those that were not begun will not end either.
  open_ -= static_cast<int64_t>(order.requests.size() - call->ids_.size());
}

void EngineLoop::cancel_left(Session& session) {
  for (const auto& call : calls_) {
    const std::lock_guard lock(call->mutex_);
    if (!call->left_) continue;
    for (const int64_t id : call->ids_) session.cancel(id);
  }
}

void EngineLoop::note(const Session& session) {
  int64_t ended = 0;
  int64_t running = 0;
  for (const auto& call : calls_) {
    ended += static_cast<int64_t>(
        std::erase_if(call->ids_, [&](int64_t id) { return !session.is_open(id); }));
    running += static_cast<int64_t>(call->ids_.size());
  }
  std::erase_if(calls_, [](const auto& call) { return call->ids_.empty(); });
  const std::lock_guard lock(mutex_);
  open_ -= ended;
  stats_.running = running;
  stats_.engine = sum(before_, session.stats());
}

void EngineLoop::fail_all(const std::string& message) {
  std::deque<Order> orders;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) orders.swap(orders_);
    open_ -= stats_.running;
    stats_.running = 0;
  }
  for (const auto& call : calls_) call->push(Failed{message});
  for (const Order& order : orders) order.call->push(Failed{message});
  calls_.clear();
}

}  // namespace praetor::serve
