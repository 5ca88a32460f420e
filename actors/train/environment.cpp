#include "actors/train/environment.h"

#include <torch/version.h>

#include <fstream>

#include "actors/job/job_config.h"
#include "core/base/sha256.h"
#include "core/base/str.h"
#include "core/base/threads.h"

namespace praetor {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

std::map<std::string, std::string> environment_facts(const JobConfig& job,
                                                     const Collective& ranks) {
  return {{"praetor", PRAETOR_VERSION},
          {"libtorch", TORCH_VERSION},
          {"processor", processor_name()},
          {"threads", str(threads())},
          {"ranks", str(ranks.world_size())},
          {"exchange", ranks.device() ? ranks.device()->backend() : ranks.backend()},
          {"configuration", sha256_hex(job.resolved_arithmetic())}};
}

std::vector<std::string> differences(const std::map<std::string, std::string>& then,
                                     const std::map<std::string, std::string>& now) {
  std::vector<std::string> out;
  for (const auto& [key, value] : now) {
    const auto found = then.find(key);
    const std::string before = found == then.end() ? "not recorded" : found->second;
    if (before != value) out.push_back(str(key, ": ", before, " then, ", value, " now"));
  }
  return out;
}

}  // namespace praetor
