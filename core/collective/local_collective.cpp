#include "core/collective/exchange_collective.h"

namespace praetor {
namespace {

class LocalCollective final : public ExchangeCollective {
 public:
  LocalCollective() : ExchangeCollective(0, 1, {}) {}
  std::string backend() const override { return "local"; }

 protected:
  void exchange(const CollectiveCall& /*call*/,
                const Routes& /*routes*/,
                const std::vector<Bytes>& /*send*/,
                const std::vector<MutableBytes>& /*receive*/) override {}
  void send_abort(const std::string& /*reason*/) noexcept override {}
};

}  // namespace

std::unique_ptr<Collective> make_local_collective() {
  return std::make_unique<LocalCollective>();
}

}  // namespace praetor
