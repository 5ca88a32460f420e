#include "actors/launch/launcher.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "actors/launch/slurm_launcher.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

JobConfig job_with(const std::string& launcher) {
  JobConfig job = JobConfig::read(YamlDocument::parse(
      "name: small\nstages:\n  - kind: toy_language\n    name: language\n" + launcher));
  CHECK(join(job.document->errors(), "\n") == "");
  return job;
}

std::string words_of(const ChildCommand& command) {
  return join(command.argv, " ");
}

const std::vector<std::string> kRole = {"praetor", "role"};
const std::string kRoot = ::geteuid() == 0 ? "--allow-run-as-root " : "";

}  // namespace

TEST_CASE("on this machine a role is its own process, and several learner ranks are mpirun's",
          "[actors][cpu]") {
  const JobConfig job = job_with("placement: separate\nroles: {learner: {ranks: 2}}\n");
  const auto launcher = Launcher::make(job);
  CHECK(words_of(launcher->worker("rollout-0", kRole, 2, 1)) == "praetor role");
  CHECK(words_of(launcher->learners(kRole, 1, 1)) == "praetor role");
  CHECK(words_of(launcher->learners(kRole, 2, 1)) ==
        "mpirun -n 2 --oversubscribe --bind-to none " + kRoot + "praetor role");
  CHECK(launcher->end_signal(kLearners) == SIGUSR1);
  CHECK(launcher->end_signal("rollout-0") == SIGTERM);
  CHECK(launcher->learners(kRole, 2, 1).environment.at("OMP_WAIT_POLICY") == "passive");
}

TEST_CASE("workers take turns on the hosts, and go to the next one after a failure",
          "[actors][cpu]") {
  const JobConfig job = job_with(
      "launcher: {kind: mpirun, hosts: [localhost, alpha:4, beta:2], remote_shell: [ssh, -q]}\n"
      "network: {interface: ib0}\n");
  CHECK(job.placement == "separate");
  const auto launcher = Launcher::make(job);
  // A process of this host needs no mpirun.
  CHECK(words_of(launcher->worker("rollout-0", kRole, 3, 1)) == "praetor role");
  const ChildCommand there = launcher->worker("rollout-1", kRole, 4, 1);
  CHECK(words_of(there) == "mpirun -n 1 --oversubscribe --bind-to none " + kRoot +
                               "--host alpha -x NCCL_SOCKET_IFNAME -x OMP_WAIT_POLICY -x "
                               "PRAETOR_INCARNATION praetor role");
  CHECK(there.environment.at("OMPI_MCA_plm_rsh_agent") == "ssh -q");
  CHECK(there.environment.at("NCCL_SOCKET_IFNAME") == "ib0");
  CHECK(there.environment.at("OMPI_MCA_btl_tcp_if_include") == "ib0");
  CHECK_THAT(words_of(launcher->worker("rollout-1", kRole, 4, 2)),
             Catch::Matchers::Contains("--host beta "));
  CHECK_THAT(words_of(launcher->learners(kRole, 6, 1)),
             Catch::Matchers::StartsWith("mpirun -n 6 ") &&
                 Catch::Matchers::Contains("--host localhost:1,alpha:4,beta:2 "));
}

TEST_CASE("steps of a Slurm job say their node, and ranks of one MPI job use PMIx",
          "[actors][cpu]") {
  const std::string common =
      "--overlap --overcommit --cpu-bind=none --input=none --unbuffered --kill-on-bad-exit=1 ";
  const std::vector<std::string> nodes = {"n1", "n2", "n3"};
  CHECK(join(learner_step(nodes, 1, false), " ") ==
        "srun --job-name=learners " + common +
            "--nodes=1 --ntasks=1 --ntasks-per-node=1 --nodelist=n1 --mpi=none");
  CHECK(
      join(learner_step(nodes, 8, true), " ") ==
      "srun --job-name=learners " + common +
          "--het-group=0 --nodes=3 --ntasks=8 --ntasks-per-node=3 --nodelist=n1,n2,n3 --mpi=pmix");
  CHECK(join(worker_step("rollout-1", nodes, 1, 1, false), " ") ==
        "srun --job-name=rollout-1 " + common + "--nodes=1 --ntasks=1 --nodelist=n2 --mpi=none");
  CHECK(join(worker_step("rollout-1", nodes, 1, 3, true), " ") ==
        "srun --job-name=rollout-1 " + common +
            "--het-group=1 --nodes=1 --ntasks=1 --nodelist=n1 --mpi=none");
}

TEST_CASE("steps are found by their names", "[actors][cpu]") {
  CHECK(steps_named("7.0 learners\n7.1 rollout-0\n7.2 rollout-10\n7.batch batch\n",
                    {"rollout-0", "learners"}) == std::vector<std::string>{"7.0", "7.1"});
  CHECK(steps_named("", {"rollout-0"}).empty());
}

TEST_CASE("slurm outside of an allocation says how to get one", "[actors][cpu]") {
  if (std::getenv("SLURM_JOB_ID") != nullptr) return;  // these tests run in one themselves
  CHECK_THROWS_WITH(Launcher::make(job_with("launcher: {kind: slurm}\n")),
                    Catch::Matchers::Contains("praetor submit JOB.yaml"));
}

TEST_CASE("a machine knows its own names", "[actors][cpu]") {
  char name[256] = {};
  REQUIRE(::gethostname(name, sizeof(name) - 1) == 0);
  CHECK(is_this_host(name));
  CHECK(is_this_host("localhost"));
  CHECK(is_this_host("127.0.1.1"));
  CHECK_FALSE(is_this_host("praetor-has-no-such-host"));
}

}  // namespace praetor
