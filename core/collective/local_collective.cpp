#include <utility>

#include "core/collective/exchange_collective.h"

namespace praetor {
namespace {

class LocalCollective final : public ExchangeCollective {
 public:
  LocalCollective() : ExchangeCollective(0, 1, {}) {}
  LocalCollective(const LocalCollective& whole, Membership group)
      : ExchangeCollective(whole, std::move(group)) {}
  std::string backend() const override { return "local"; }

 protected:
  void exchange(const CollectiveCall& /*call*/,
                const Routes& /*routes*/,
                const std::vector<Bytes>& /*send*/,
                const std::vector<MutableBytes>& /*receive*/) override {}
  std::unique_ptr<ExchangeCollective> make_group(Membership group) override {
    return std::make_unique<LocalCollective>(*this, std::move(group));
  }
};

}  // namespace

std::unique_ptr<Collective> make_local_collective() {
  return std::make_unique<LocalCollective>();
}

}  // namespace praetor
