#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <torch/version.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/cli/commands.h"
#include "actors/train/environment.h"
#include "core/base/error.h"
#include "core/base/threads.h"
#include "core/model/kernels/self_check.h"

namespace praetor::cli {

namespace {

namespace fs = std::filesystem;

nlohmann::ordered_json gpus() {
  nlohmann::ordered_json found = nlohmann::ordered_json::array();
  const fs::path folder = "/proc/driver/nvidia/gpus";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    found.push_back(entry.path().filename().string());
  return found;
}

nlohmann::ordered_json examine() {
  struct sysinfo memory {};
  ::sysinfo(&memory);
  struct rlimit files {};
  ::getrlimit(RLIMIT_NOFILE, &files);
  std::error_code failure;
  const auto space = fs::space(".", failure);
  const ops::KernelReport kernels = ops::kernels_self_check();
  return {{"versions",
           {{"praetor", PRAETOR_VERSION},
            {"libtorch", TORCH_VERSION},
            {"compiler", __VERSION__},
            {"sqlite", PRAETOR_SQLITE_VERSION},
            {"yaml-cpp", PRAETOR_YAML_VERSION},
            {"spdlog", PRAETOR_SPDLOG_VERSION},
            {"sentencepiece", PRAETOR_SENTENCEPIECE_VERSION},
            {"pcre2", PRAETOR_PCRE2_VERSION},
            {"openssl", PRAETOR_OPENSSL_VERSION}}},
          {"processor",
           {{"name", processor_name()},
            {"cores", std::thread::hardware_concurrency()},
            {"threads", threads()},
            {"kernels", kernels.isa},
            {"row_invariant", kernels.passed},
            {"self_check_ms", kernels.milliseconds},
            {"failure", kernels.failure}}},
          {"gpus", gpus()},
          {"limits",
           {{"memory_bytes", static_cast<uint64_t>(memory.totalram) * memory.mem_unit},
            {"free_memory_bytes", static_cast<uint64_t>(memory.freeram) * memory.mem_unit},
            {"open_files", files.rlim_cur},
            {"free_disk_bytes", failure ? 0 : space.available},
            {"folder_writable", ::access(".", W_OK) == 0}}}};
}

}  // namespace

void add_doctor(CLI::App& app, int& status) {
  auto json = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("doctor",
                                     "What this machine is: versions linked, processor and GPUs, "
                                     "limits, and whether the kernels keep their promise");
  command->add_flag("--json", *json, "The same as JSON on stdout");
  command->footer(
      "Status 70 when the same row gave other bits in another batch or under other threads: please "
      "report it.");
  command->callback([json, &status] {
    const auto found = examine();
    if (*json) {
      std::printf("%s\n", found.dump().c_str());
    } else {
      for (const auto& [group, entries] : found.items()) {
        if (entries.is_array()) {
          std::fprintf(stderr,
                       "%-10s %s\n",
                       group.c_str(),
                       entries.empty() ? "none seen" : entries.dump().c_str());
          continue;
        }
        for (const auto& [name, value] : entries.items()) {
          if (name == "failure" && value == "") continue;
          std::fprintf(stderr,
                       "%-10s %-18s %s\n",
                       group.c_str(),
                       name.c_str(),
                       value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
        }
      }
    }
    if (!found["processor"]["row_invariant"].get<bool>()) status = kExitBug;
  });
}

}  // namespace praetor::cli
