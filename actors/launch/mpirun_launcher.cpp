#include <signal.h>

#include "actors/launch/launcher.h"
#include "core/base/str.h"
#include "core/base/text.h"

namespace praetor {

namespace {

class MpirunLauncher final : public Launcher {
 public:
  explicit MpirunLauncher(const JobConfig& job) : job_(job), hosts_(job.launcher.hosts) {}

  ChildCommand learners(const std::vector<std::string>& words,
                        int64_t ranks,
                        int64_t attempt) override {
    // A group of one needs no MPI, and takes turns as a worker does.
    if (ranks == 1) return on_host(hosts_[turn(0, attempt)].host, words);
    std::vector<std::string> list;
    for (const HostSlots& host : hosts_) list.push_back(str(host.host, ":", host.slots));
    return under_mpirun(ranks, join(list, ","), words);
  }

  ChildCommand worker(const std::string& /*name*/,
                      const std::vector<std::string>& words,
                      int64_t number,
                      int64_t attempt) override {
    return on_host(hosts_[turn(number, attempt)].host, words);
  }

  int end_signal(const std::string& /*name*/) const override { return SIGUSR1; }
  // A daemon of mpirun ends its processes once mpirun is gone.
  void clear(const std::vector<std::string>& /*names*/) override {}
  int64_t places() const override { return static_cast<int64_t>(hosts_.size()); }
  std::string describe() const override {
    return str(hosts_.size(), hosts_.size() == 1 ? " host" : " hosts", " through mpirun");
  }

 private:
  /// Round robin; a start after a failure tries the next host, for the last one may be gone.
  size_t turn(int64_t number, int64_t attempt) const {
    return static_cast<size_t>(number + attempt - 1) % hosts_.size();
  }

  ChildCommand on_host(const std::string& host, const std::vector<std::string>& words) const {
    if (is_this_host(host)) return {.argv = words, .environment = environment()};
    return under_mpirun(1, host, words);
  }

  ChildCommand under_mpirun(int64_t ranks,
                            const std::string& hosts,
                            const std::vector<std::string>& words) const {
    ChildCommand out{.argv = mpirun_words(ranks), .environment = environment()};
    for (const std::string& word : {std::string("--host"), hosts}) out.argv.push_back(word);
    // Other hosts get what is named here of our environment, beside OpenMPI's own.
    for (const auto& [name, value] : out.environment) {
      if (!name.starts_with("OMPI_")) out.argv.insert(out.argv.end(), {"-x", name});
    }
    out.argv.insert(out.argv.end(), {"-x", "PRAETOR_INCARNATION"});
    out.argv.insert(out.argv.end(), words.begin(), words.end());
    return out;
  }

  std::map<std::string, std::string> environment() const {
    auto out = role_environment(job_);
    out["OMPI_MCA_plm_rsh_agent"] = join(job_.launcher.remote_shell, " ");
    // The hosts are those of the job file, also within an allocation of Slurm.
    out["OMPI_MCA_plm"] = out["OMPI_MCA_ras"] = "^slurm";
    return out;
  }

  const JobConfig& job_;
  const std::vector<HostSlots>& hosts_;
};

}  // namespace

std::unique_ptr<Launcher> make_mpirun_launcher(const JobConfig& job) {
  return std::make_unique<MpirunLauncher>(job);
}

}  // namespace praetor
