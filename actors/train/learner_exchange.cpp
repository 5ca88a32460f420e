#include "actors/train/learner_exchange.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "actors/job/learner_devices.h"
#include "actors/roles/member.h"
#include "actors/train/weight_caster.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/cuda/library.h"

namespace praetor {

namespace {

constexpr const char* kKey = "roles.learner.collective: ";
/// Goes before a rank's failure to join: its own, or of one that waited for others.
constexpr char kFailed = 'f', kWaited = 'w';
constexpr const char* kMemory = "MPI and the processor's memory: ";

std::string to_bytes(const RankGpu& gpu) {
  using nlohmann::json;
  // Names and failures come from elsewhere: what is no UTF-8 in them is replaced.
  return json{gpu.host, gpu.nccl_host, gpu.index, gpu.name, gpu.id, gpu.failure}.dump(
      -1, ' ', false, json::error_handler_t::replace);
}

RankGpu gpu_from_bytes(const std::string& bytes) {
  const auto fields = nlohmann::json::parse(bytes);
  return {.host = fields.at(0),
          .nccl_host = fields.at(1),
          .index = fields.at(2),
          .name = fields.at(3),
          .id = fields.at(4),
          .failure = fields.at(5)};
}

std::string who(const std::vector<RankGpu>& gpus, size_t rank) {
  return str("rank ", rank, " on ", gpus[rank].host);
}

}  // namespace

RankGpu gpu_of_rank() {
  RankGpu out{.host = host_name()};
  const char* const given = std::getenv("NCCL_HOSTID");
  out.nccl_host = given && *given ? given : out.host;
  try {
    out.index = device_of_rank(c10::Device(c10::kCUDA)).index();
    const cuda::DeviceReport report = cuda::Library::instance().devices();
    if (report.devices.empty()) {
      out.failure = str("the GPU library sees no GPU: ", report.failure);
    } else if (out.index >= static_cast<int32_t>(report.devices.size())) {
      out.failure = str("it learns on GPU ",
                        out.index,
                        ", of which the GPU library sees ",
                        report.devices.size());
    } else {
      const cuda::DeviceDescription& device = report.devices[static_cast<size_t>(out.index)];
      out.name = device.name;
      out.id = device.id;
    }
  } catch (const Error& failure) {
    out.failure = failure.what();
  }
  return out;
}

std::string why_not_nccl(const std::vector<RankGpu>& ranks) {
  for (size_t r = 0; r < ranks.size(); ++r) {
    if (!ranks[r].failure.empty()) return str(who(ranks, r), ": ", ranks[r].failure);
  }
  for (size_t b = 1; b < ranks.size(); ++b) {
    for (size_t a = 0; a < b; ++a) {
      if (ranks[a].nccl_host != ranks[b].nccl_host || ranks[a].id != ranks[b].id) continue;
      return str(who(ranks, a),
                 " and ",
                 who(ranks, b),
                 " have one GPU, number ",
                 ranks[a].index,
                 " (",
                 ranks[a].name,
                 "), and NCCL wants one for each: start no more ranks on a host than it has GPUs");
    }
  }
  return "";
}

std::string exchange_over_gpus(Collective& ranks,
                               const std::string& wanted,
                               const RankGpu& mine,
                               const NcclGroup& nccl,
                               CollectiveOptions options) {
  const bool insists = wanted == "nccl";
  std::vector<RankGpu> gpus;
  for (const std::string& bytes : ranks.all_gather_bytes(to_bytes(mine)))
    gpus.push_back(gpu_from_bytes(bytes));
  if (const std::string why = why_not_nccl(gpus); !why.empty()) {
    if (!insists) return kMemory + why;
    throw ExchangeRefused(
        kKey, "nccl: ", why, "; mpi does without NCCL, and auto takes it where it can be had");
  }
  std::unique_ptr<Collective> group;
  std::string failure;  // every rank is told, and none goes on alone
  try {
    group = make_nccl_collective(ranks, nccl, options);
  } catch (const CollectiveError& error) {
    failure = str(kWaited, error.what());
  } catch (const std::exception& error) {
    failure = str(kFailed, error.what());
  }
  // Whatever becomes of the others, the reason is not lost.
  if (!failure.empty())
    log::warn(str("NCCL does not bring the learner ranks together: ", failure.substr(1)));
  const std::vector<std::string> failures = ranks.all_gather_bytes(failure);
  for (const char kind : {kFailed, kWaited}) {
    for (size_t r = 0; r < failures.size(); ++r) {
      if (!failures[r].starts_with(kind)) continue;
      const std::string why = str(who(gpus, r), ": ", failures[r].substr(1));
      if (!insists) return kMemory + why;
      throw CollectiveError(kKey, "nccl: ", why);
    }
  }
  ranks.set_device(std::move(group));
  return str("NCCL on ", ranks.world_size(), " GPUs");
}

void set_learner_exchange(const JobConfig& job, Collective& ranks) {
  const std::string& wanted = job.roles.learner_collective;
  if (ranks.world_size() == 1 || !job.learns_on_gpus()) return;
  std::string over = str(kMemory, kKey, "mpi");
  if (wanted != "mpi") {
    const RankGpu mine = gpu_of_rank();
    NcclGroup nccl = groups_on(mine.index);
    nccl.on_device = true;
    over = exchange_over_gpus(
        ranks, wanted, mine, nccl, {.deadline = milliseconds_of(job.roles.learner_timeout)});
    if (ranks.device()) over += str(" (", cuda::Library::instance().built_for(), ")");
  }
  if (ranks.rank() > 0) return;
  const std::string said = str("learner ranks exchange over ", over);
  wanted == "mpi" || ranks.device() ? log::info(said) : log::warn(said);
}

void require_exchange_library(const JobConfig& job) {
  if (job.roles.learner_collective != "nccl") return;
  try {
    cuda::Library::instance();
  } catch (const Error& failure) {
    throw MissingInput(kKey, "nccl: ", failure.what(), "; mpi does without it");
  }
}

}  // namespace praetor
