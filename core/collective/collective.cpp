#include "core/collective/collective.h"

#include <utility>

#include "core/base/error.h"

namespace praetor {
namespace {

class Done final : public PendingCollective {
 public:
  void wait() override {}
};

}  // namespace

std::unique_ptr<Collective> Collective::split(const std::string& name,
                                              int64_t colour,
                                              int64_t key) {
  std::unique_ptr<Collective> group = do_split(name, colour, key);
  if (device_) group->set_device(device_->split(name, colour, key));
  return group;
}

void Collective::set_device(std::unique_ptr<Collective> device) {
  if (device->members() != members() || device->rank() != rank())
    throw InvalidArgument("a group on the device of other ranks than it is for");
  device->share_step(*this);
  device_ = std::move(device);
}

void Collective::abort(const std::string& reason) noexcept {
  do_abort(reason);
  if (device_) device_->abort(reason);
}

std::unique_ptr<PendingCollective> Collective::do_start_reduce_scatter(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  do_reduce_scatter(type, send, send_count, receive, receive_count);
  return std::make_unique<Done>();
}

std::unique_ptr<PendingCollective> Collective::do_start_all_gather(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  do_all_gather(type, send, send_count, receive, receive_count);
  return std::make_unique<Done>();
}

void Collective::do_all_to_all(ElementType, const void*, int64_t, void*, int64_t) {
  throw InvalidArgument("the ", backend(), " backend has no all_to_all");
}

void Collective::do_send(ElementType, const void*, int64_t, int32_t) {
  throw InvalidArgument("the ", backend(), " backend has no send");
}

void Collective::do_receive(ElementType, void*, int64_t, int32_t) {
  throw InvalidArgument("the ", backend(), " backend has no receive");
}

}  // namespace praetor
