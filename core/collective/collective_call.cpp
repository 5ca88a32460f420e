#include "core/collective/collective_call.h"

#include "core/base/str.h"

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;

const char* name_of(ElementType type) {
  constexpr const char* kNames[] = {"float32", "float64", "int64", "bytes", "bfloat16", "int32"};
  return kNames[static_cast<int32_t>(type)];
}

const char* name_of(Operation operation) {
  constexpr const char* kNames[] = {"reduce_scatter",
                                    "all_gather",
                                    "all_reduce",
                                    "all_gather_bytes",
                                    "broadcast",
                                    "barrier",
                                    "all_to_all",
                                    "send/receive",
                                    "split",
                                    "join",
                                    "close"};
  return kNames[static_cast<int32_t>(operation)];
}

}  // namespace

bool CollectiveCall::operator==(const CollectiveCall& other) const {
  return operation == other.operation && type == other.type && root == other.root &&
         to == other.to && stage == other.stage && sequence == other.sequence &&
         count == other.count;
}

std::string CollectiveCall::text() const {
  std::string out = str(name_of(operation), " #", sequence);
  if (count > 0) out += str(" of ", count, " ", name_of(type));
  if (operation == Operation::kBroadcast || operation == Operation::kTransfer)
    out += str(" from rank ", root);
  if (operation == Operation::kTransfer) out += str(" to rank ", to);
  if (step >= 0) out += str(" in step ", step);
  return out;
}

std::string CollectiveCall::name_in(const Membership& group, const std::string& backend) const {
  CollectiveCall same = *this;
  same.step = -1;
  const std::string which = group.text();
  return str(same.text(), " over ", backend, which.empty() ? "" : " in ", which);
}

CallNumbers::CallNumbers(const Membership& group)
    : transfers_to_(group.members.size()), transfers_from_(transfers_to_) {}

CollectiveCall CallNumbers::next(const Membership& group,
                                 Operation operation,
                                 ElementType type,
                                 int64_t count,
                                 int32_t root,
                                 int32_t to) {
  CollectiveCall call;
  call.operation = operation;
  call.type = type;
  call.root = group.global(root);
  call.to = group.global(to);
  call.count = count;
  if (operation != Operation::kTransfer) {
    call.sequence = sequence_++;
  } else {
    call.sequence = root == group.rank ? transfers_to_[static_cast<size_t>(to)]++
                                       : transfers_from_[static_cast<size_t>(root)]++;
  }
  return call;
}

}  // namespace praetor
