#include "actors/launch/launcher.h"

#include <signal.h>
#include <unistd.h>

#include "core/base/str.h"

namespace praetor {

namespace {

class LocalLauncher final : public Launcher {
 public:
  explicit LocalLauncher(const JobConfig& job) : job_(job) {}

  ChildCommand learners(const std::vector<std::string>& words,
                        int64_t ranks,
                        int64_t /*attempt*/) override {
    ChildCommand out{.argv = ranks > 1 ? mpirun_words(ranks) : std::vector<std::string>{},
                     .environment = role_environment(job_)};
    out.argv.insert(out.argv.end(), words.begin(), words.end());
    // No daemons elsewhere, so that no ssh is wanted; within an allocation mpirun would spread the
    // ranks over its nodes.
    if (ranks > 1)
      out.environment.insert({{"OMPI_MCA_plm", "isolated"}, {"OMPI_MCA_ras", "^slurm"}});
    return out;
  }
  ChildCommand worker(const std::string& /*name*/,
                      const std::vector<std::string>& words,
                      int64_t /*number*/,
                      int64_t /*attempt*/) override {
    return {.argv = words, .environment = role_environment(job_)};
  }
  int end_signal(const std::string& name) const override {
    return name == kLearners && job_.roles.learner_ranks > 1 ? SIGUSR1 : SIGTERM;
  }
  void clear(const std::vector<std::string>& /*names*/) override {}
  int64_t places() const override { return 1; }
  std::string describe() const override { return "this machine"; }

 private:
  const JobConfig& job_;
};

}  // namespace

std::unique_ptr<Launcher> make_local_launcher(const JobConfig& job) {
  return std::make_unique<LocalLauncher>(job);
}

std::unique_ptr<Launcher> Launcher::make(const JobConfig& job) {
  if (job.launcher.kind == "mpirun") return make_mpirun_launcher(job);
  if (job.launcher.kind == "slurm") return make_slurm_launcher(job);
  return make_local_launcher(job);
}

std::map<std::string, std::string> role_environment(const JobConfig& job) {
  std::map<std::string, std::string> out = {{"OMP_WAIT_POLICY", "passive"},
                                            {"OMPI_MCA_mpi_yield_when_idle", "1"}};
  if (const std::string& interface = job.network.interface; !interface.empty()) {
    for (const char* name :
         {"NCCL_SOCKET_IFNAME", "OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_oob_tcp_if_include"})
      out[name] = interface;
  }
  return out;
}

std::vector<std::string> mpirun_words(int64_t ranks) {
  std::vector<std::string> out = {
      "mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none"};
  if (::geteuid() == 0) out.emplace_back("--allow-run-as-root");
  return out;
}

}  // namespace praetor
