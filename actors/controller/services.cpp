#include "actors/controller/services.h"

#include <exception>
#include <utility>

namespace praetor {

std::vector<Orders> WorkerService::heartbeat_all(const std::vector<Heartbeat>& beats) {
  std::vector<Orders> out;
  for (const Heartbeat& beat : beats) out.push_back(heartbeat(beat));
  return out;
}

std::vector<std::optional<Lease>> WorkerService::lease_some(
    const std::vector<LeaseRequest>& requests, std::chrono::milliseconds wait) {
  std::vector<std::optional<Lease>> out;
  for (LeaseRequest request : requests) {
    request.wait = std::exchange(wait, std::chrono::milliseconds(0));
    out.push_back(lease(request));
  }
  return out;
}

void WorkerService::complete_all(std::vector<Completion> completions) {
  std::exception_ptr failure;
  for (Completion& completion : completions) {
    try {
      complete(std::move(completion));
    } catch (const Error&) {
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace praetor
