#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <torch/version.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>

#include "actors/cli/commands.h"
#include "actors/rpc/client.h"
#include "actors/rpc/server.h"
#include "actors/train/environment.h"
#include "core/base/error.h"
#include "core/base/random_hex.h"
#include "core/base/threads.h"
#include "core/cuda/library.h"
#include "core/cuda/torch_library.h"
#include "core/model/kernels/self_check.h"
#include "reward/sandbox/sandbox.h"

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

/// The GPU library and what it sees.
nlohmann::ordered_json gpu_library() {
  try {
    const cuda::Library& library = cuda::Library::instance();
    const cuda::DeviceReport report = library.devices();
    nlohmann::ordered_json devices = nlohmann::ordered_json::array();
    for (const cuda::DeviceDescription& each : report.devices) {
      devices.push_back(str(each.name,
                            ", sm_",
                            each.major,
                            each.minor,
                            ", ",
                            each.memory_bytes >> 30,
                            " GiB, ",
                            each.multiprocessors,
                            " multiprocessors"));
    }
    return {{"file", library.file()},
            {"built_for", library.built_for()},
            {"devices", devices},
            {"failure", report.failure.empty() ? "" : "no GPU seen: " + report.failure}};
  } catch (const Error& failure) {
    return {{"file", nullptr},
            {"built_for", nullptr},
            {"devices", nlohmann::ordered_json::array()},
            {"failure", failure.what()}};
  }
}

/// What learners on a GPU compute with.
nlohmann::ordered_json torch_cuda() {
  try {
    const cuda::TorchLibrary& library = cuda::TorchLibrary::instance();
    const std::string failure = library.failure();
    return {{"file", library.file()},
            {"devices", library.devices()},
            {"failure", failure.empty() ? "" : "no GPU seen: " + failure}};
  } catch (const Error& failure) {
    return {{"file", nullptr}, {"devices", 0}, {"failure", failure.what()}};
  }
}

/// A call to a server of our own, as a run's members make it.
nlohmann::ordered_json loopback() {
  class Nothing final : public SupervisorService {
   public:
    RunStatus status() override { return {.run_id = "doctor"}; }
    void report_death(const std::string&, int64_t, const std::string&) override {}
    void end_run() override {}
  };
  try {
    Nothing nothing;
    const std::string secret = random_hex(32);
    RpcServer server({nullptr, nullptr, &nothing}, {.run_id = "doctor", .secret = secret});
    RpcClientOptions options;
    options.run_id = "doctor";
    options.secret = secret;
    options.resolve = [&] { return server.address(); };
    options.patience = options.call_time = std::chrono::seconds(5);
    SupervisorClient client(options);
    client.status();
    const auto start = std::chrono::steady_clock::now();
    client.status();
    const double milliseconds =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    return {{"port", server.port()}, {"call_ms", milliseconds}, {"failure", ""}};
  } catch (const Error& failure) {
    return {{"port", 0}, {"call_ms", nullptr}, {"failure", failure.what()}};
  }
}

/// What a command prints first, and how it ends.
std::pair<std::string, bool> first_line_of(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1 < /dev/null").c_str(), "r");
  if (!pipe) return {"", false};
  char line[256] = {};
  if (!std::fgets(line, sizeof(line), pipe)) line[0] = 0;
  char rest[256];
  while (std::fgets(rest, sizeof(rest), pipe)) {
  }
  std::string text(line);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return {text, ::pclose(pipe) == 0};
}

/// Whether learners of more than one rank can be started here.
nlohmann::ordered_json mpi() {
  const auto [version, found] = first_line_of("mpirun --version");
  if (!found) return {{"version", nullptr}, {"two_ranks", false}, {"failure", "no mpirun in PATH"}};
  const auto [text, started] =
      first_line_of(str("timeout 30 mpirun -n 2 --oversubscribe --bind-to none ",
                        ::geteuid() == 0 ? "--allow-run-as-root " : "",
                        "true"));
  return {{"version", version}, {"two_ranks", started}, {"failure", started ? "" : text}};
}

/// Whether rewards of kind `code` can run programs here.
nlohmann::ordered_json sandbox() {
  try {
    Sandbox({}).run({"/usr/bin/true"}, "", Deadline::after(std::chrono::seconds(10)));
    return {{"works", true}, {"failure", ""}};
  } catch (const Error& failure) {
    return {{"works", false}, {"failure", failure.what()}};
  }
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
            {"cpp-httplib", PRAETOR_HTTPLIB_VERSION},
            {"pcre2", PRAETOR_PCRE2_VERSION},
            {"openssl", PRAETOR_OPENSSL_VERSION},
            {"grpc", PRAETOR_GRPC_VERSION},
            {"protobuf", PRAETOR_PROTOBUF_VERSION}}},
          {"processor",
           {{"name", processor_name()},
            {"cores", std::thread::hardware_concurrency()},
            {"threads", threads()},
            {"kernels", kernels.isa},
            {"row_invariant", kernels.passed},
            {"self_check_ms", kernels.milliseconds},
            {"failure", kernels.failure}}},
          {"gpus", gpus()},
          {"gpu_library", gpu_library()},
          {"torch_cuda", torch_cuda()},
          {"rpc", loopback()},
          {"mpi", mpi()},
          {"sandbox", sandbox()},
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
      "report it. Status 75 when no process of this machine can call another, which separate roles "
      "need.");
  command->callback([json, &status] {
    const auto found = examine();
    if (*json) {
      std::printf("%s\n", found.dump().c_str());
    } else {
      for (const auto& [group, entries] : found.items()) {
        if (entries.is_array()) {
          std::fprintf(stderr,
                       "%-11s %s\n",
                       group.c_str(),
                       entries.empty() ? "none seen" : entries.dump().c_str());
          continue;
        }
        for (const auto& [name, value] : entries.items()) {
          if (name == "failure" && value == "") continue;
          std::fprintf(stderr,
                       "%-11s %-18s %s\n",
                       group.c_str(),
                       name.c_str(),
                       value.is_string() ? value.get<std::string>().c_str() : value.dump().c_str());
        }
      }
    }
    if (!found["processor"]["row_invariant"].get<bool>()) status = kExitBug;
    if (found["rpc"]["failure"] != "") status = kExitTemporary;
  });
}

}  // namespace praetor::cli
