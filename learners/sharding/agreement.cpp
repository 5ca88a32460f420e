#include "learners/sharding/agreement.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <cstring>

#include "core/base/error.h"

namespace praetor {
namespace {

// How a rank's answer begins.
constexpr char kDone = '+', kData = 'D', kInvalid = 'I', kShape = 'S', kCheckpoint = 'C',
               kFile = 'F', kMissing = 'M', kTemporary = 'T', kRpc = 'R', kInternal = 'X';

char kind_of(const Error& error) {
  if (dynamic_cast<const DataError*>(&error)) return kData;
  if (dynamic_cast<const InvalidArgument*>(&error)) return kInvalid;
  if (dynamic_cast<const ShapeError*>(&error)) return kShape;
  if (dynamic_cast<const CheckpointError*>(&error)) return kCheckpoint;
  if (dynamic_cast<const IoError*>(&error)) return kFile;
  if (dynamic_cast<const MissingInput*>(&error)) return kMissing;
  if (dynamic_cast<const TemporaryError*>(&error)) return kTemporary;
  if (dynamic_cast<const RpcError*>(&error)) return kRpc;
  return kInternal;
}

[[noreturn]] void rethrow(char kind, const std::string& message) {
  switch (kind) {
    case kData:
      throw DataError(message);
    case kInvalid:
      throw InvalidArgument(message);
    case kShape:
      throw ShapeError(message);
    case kCheckpoint:
      throw CheckpointError(message);
    case kFile:
      throw IoError(message);
    case kMissing:
      throw MissingInput(message);
    case kTemporary:
      throw TemporaryError(message);
    case kRpc:
      throw RpcError(message);
    default:
      throw InternalError(message);
  }
}

/// What a rank answers: what it made, or how it failed.
std::string answer_of(const Collective& ranks, const std::function<std::string()>& work) {
  try {
    return kDone + work();
  } catch (const CollectiveError&) {
    throw;  // nobody is left to agree with
  } catch (const Error& error) {
    return kind_of(error) + std::string(error.what());
  } catch (const std::exception& error) {
    return kInternal + str("rank ", ranks.global_rank(), ": ", error.what());
  }
}

/// What all made, unless one failed.
std::vector<std::string> agreed(std::vector<std::string> answers) {
  for (const std::string& one : answers) {
    if (one[0] != kDone) rethrow(one[0], one.substr(1));
  }
  for (std::string& one : answers) one.erase(0, 1);
  return answers;
}

}  // namespace

std::vector<std::string> gather_agreed(Collective& ranks,
                                       const std::function<std::string()>& work) {
  if (ranks.world_size() == 1) return {work()};
  return agreed(ranks.all_gather_bytes(answer_of(ranks, work)));
}

std::vector<at::Tensor> gather_tensors_agreed(
    Collective& ranks, const std::function<std::vector<at::Tensor>()>& work) {
  if (ranks.world_size() == 1) return work();
  std::vector<at::ScalarType> dtypes;
  const std::vector<std::string> all = gather_agreed(ranks, [&] {
    // Each tensor: its elements as a 64-bit number, then their bytes.
    std::string bytes;
    for (const at::Tensor& made : work()) {
      const at::Tensor flat = made.contiguous();
      const int64_t count = flat.numel();
      dtypes.push_back(flat.scalar_type());
      bytes.append(reinterpret_cast<const char*>(&count), sizeof(count));
      bytes.append(static_cast<const char*>(flat.const_data_ptr()), flat.nbytes());
    }
    return bytes;
  });
  std::vector<std::vector<at::Tensor>> parts(dtypes.size());
  for (const std::string& bytes : all) {
    const char* from = bytes.data();
    for (size_t k = 0; k < dtypes.size(); ++k) {
      int64_t count = 0;
      std::memcpy(&count, from, sizeof(count));
      from += sizeof(count);
      const at::Tensor part = at::empty({count}, dtypes[k]);
      if (count > 0) std::memcpy(part.mutable_data_ptr(), from, part.nbytes());
      from += part.nbytes();
      parts[k].push_back(part);
    }
  }
  std::vector<at::Tensor> out;
  for (const auto& of_ranks : parts) out.push_back(at::cat(of_ranks));
  return out;
}

void run_in_step(Collective& ranks, const std::function<void()>& work) {
  if (ranks.world_size() == 1) return work();
  const std::string mine = answer_of(ranks, [&] {
    work();
    return std::string();
  });
  std::vector<std::string> all;
  try {
    all = ranks.all_gather_bytes(mine);
  } catch (const CollectiveError& error) {
    if (mine[0] == kDone) throw;
    throw CollectiveError(mine.substr(1), "; and the ranks beside it went on: ", error.what());
  }
  agreed(std::move(all));
}

void run_agreed(Collective& ranks, const std::function<void()>& work) {
  gather_agreed(ranks, [&] {
    work();
    return std::string();
  });
}

}  // namespace praetor
