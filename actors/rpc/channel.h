#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/async_unary_call.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "actors/rpc/client.h"
#include "core/base/error.h"
#include "core/base/str.h"

namespace praetor {

/// One try of a call, from its start to its status. Waits in small steps, so that the caller's
/// wish to end is seen.
class RpcTry {
 public:
  RpcTry(std::shared_ptr<grpc::Channel> channel, const RpcClientOptions& options);
  ~RpcTry();
  RpcTry(const RpcTry&) = delete;
  RpcTry& operator=(const RpcTry&) = delete;

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  grpc::ClientContext& context() { return context_; }
  grpc::CompletionQueue& queue() { return queue_; }
  void set_deadline(std::chrono::milliseconds time);

  /// Waits for the next event of the call; `most` without one breaks the call off (as too slow).
  /// @return what the event says: the operation went well
  bool next(std::chrono::milliseconds most);
  /// Breaks the call off; its status is still to be waited for.
  void break_off() { context_.TryCancel(); }
  bool cancelled() const { return cancelled_; }
  bool too_slow() const { return too_slow_; }

 private:
  std::shared_ptr<grpc::Channel> channel_;
  const RpcClientOptions& options_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  bool cancelled_ = false;
  bool too_slow_ = false;
};

/// A connection to the server that `resolve` names, and the rules of trying again
/// (RpcClientOptions). Any thread.
class RpcChannel {
 public:
  explicit RpcChannel(const RpcClientOptions& options);

  /// Makes `attempt` until its status is neither transient nor a refusal that another address may
  /// answer otherwise. `moved`, when given, tells how far the attempts came: patience starts anew
  /// whenever that changes. @throws as the clients say
  void run(const std::string& call,
           const std::function<grpc::Status(RpcTry&)>& attempt,
           const std::function<int64_t()>& moved = nullptr);

  template <typename Stub, typename Request, typename Answer>
  Answer unary(const char* call,
               std::unique_ptr<grpc::ClientAsyncResponseReader<Answer>> (Stub::*method)(
                   grpc::ClientContext*, const Request&, grpc::CompletionQueue*),
               const Request& request,
               std::chrono::milliseconds wait = std::chrono::milliseconds(0)) {
    check_size(call, request.ByteSizeLong());
    Answer answer;
    run(call, [&](RpcTry& one) {
      answer.Clear();
      one.set_deadline(options_.call_time + wait);
      Stub stub(one.channel());
      const auto rpc = (stub.*method)(&one.context(), request, &one.queue());
      rpc->StartCall();
      grpc::Status status;
      rpc->Finish(&answer, &status, nullptr);
      one.next(std::chrono::milliseconds::max());
      return status;
    });
    return answer;
  }

  /// A call that is answered by a stream. `on_part` gets each part as it comes and returns false to
  /// break the stream off for another try; `restart` is called before each try.
  template <typename Stub, typename Request, typename Part, typename Restart, typename OnPart>
  void stream(const std::string& call,
              std::unique_ptr<grpc::ClientAsyncReader<Part>> (Stub::*method)(
                  grpc::ClientContext*, const Request&, grpc::CompletionQueue*),
              std::chrono::milliseconds wait,
              const Restart& restart,
              const OnPart& on_part,
              const std::function<int64_t()>& moved = nullptr) {
    run(
        call,
        [&](RpcTry& one) {
          const Request request = restart();
          // The parts have a deadline each; the whole one is for a server that sends for ever.
          one.set_deadline(std::chrono::hours(1) + wait);
          Stub stub(one.channel());
          const auto rpc = (stub.*method)(&one.context(), request, &one.queue());
          rpc->StartCall(nullptr);
          bool goes_on = one.next(options_.call_time);
          bool wanted = true;
          std::chrono::milliseconds most = options_.call_time + wait;
          Part part;
          while (goes_on && wanted) {
            part.Clear();
            rpc->Read(&part, nullptr);
            goes_on = one.next(most);
            most = options_.call_time;
            if (!goes_on) break;
            try {
              wanted = on_part(part);
            } catch (...) {
              end_stream(one, *rpc);
              throw;
            }
          }
          if (!wanted) one.break_off();
          grpc::Status status;
          rpc->Finish(&status, nullptr);
          one.next(options_.call_time);
          if (!wanted && !one.cancelled())
            return grpc::Status(grpc::StatusCode::ABORTED, "a damaged part came");
          return status;
        },
        moved);
  }

  const RpcClientOptions& options() const { return options_; }
  /// Sleeps in small steps. @throws CancelledError
  void pause(const std::string& call, std::chrono::milliseconds time) const;
  /// A long poll's wait as a server would cut it.
  static std::chrono::milliseconds cut(std::chrono::milliseconds wait);
  /// The pause that the answer to a long poll asks for, if it does: at most what was to be waited.
  void pause_as_told(const std::string& call,
                     int64_t retry_after_ms,
                     std::chrono::milliseconds wait) const;

 private:
  template <typename Stream>
  static void end_stream(RpcTry& one, Stream& rpc) {
    one.break_off();
    grpc::Status ignored;
    rpc.Finish(&ignored, nullptr);
    one.next(std::chrono::milliseconds::max());
  }
  /// What a server that nothing came of has against us, or we against it, where that is TLS.
  std::optional<std::string> handshake_refusal(const grpc::Status& status,
                                               const RpcTry& one,
                                               const std::string& address);
  void check_size(const char* call, size_t bytes) const;
  /// The connection to `address`, made when there is none.
  std::shared_ptr<grpc::Channel> connection(const std::string& address);

  const RpcClientOptions options_;
  std::mutex mutex_;  ///< guards what follows
  std::string address_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace praetor
