#include "actors/job/launcher_config.h"

#include "actors/job/job_config.h"
#include "core/base/text.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

const std::string kJob =
    "name: small\n"
    "stages:\n"
    "  - kind: toy_language\n"
    "    name: language\n";

JobConfig read(const std::string& more) {
  return JobConfig::read(YamlDocument::parse(kJob + more));
}

std::string errors(const std::string& more) {
  return join(read(more).document->errors(), "\n");
}

}  // namespace

TEST_CASE("several hosts mean separate processes and servers that they reach", "[actors][cpu]") {
  CHECK(read("").placement == "colocated");
  CHECK(read("").network.bind == "127.0.0.1");
  CHECK(read("launcher: {kind: slurm}\n").placement == "separate");
  CHECK(read("launcher: {kind: slurm}\n").network.bind == "127.0.0.1");
  CHECK(read("launcher: {kind: slurm, slurm: {nodes: 2}}\n").network.bind == "0.0.0.0");
  CHECK(read("launcher: {kind: slurm, slurm: {workers: {nodes: 1}}}\n").network.bind == "0.0.0.0");
  CHECK(read("launcher: {kind: mpirun, hosts: [localhost:2]}\n").network.bind == "127.0.0.1");
  CHECK(read("launcher: {kind: mpirun, hosts: [localhost, a]}\n").network.bind == "0.0.0.0");
  CHECK(errors("launcher: {kind: slurm, slurm: {nodes: 1}}\nplacement: colocated\n") == "");
}

TEST_CASE("hosts carry their slots", "[actors][cpu]") {
  const auto hosts = read("launcher: {kind: mpirun, hosts: [a, 'b:8']}\n").launcher.hosts;
  REQUIRE(hosts.size() == 2);
  CHECK(hosts[0].host == "a");
  CHECK(hosts[0].slots == 1);
  CHECK(hosts[1].host == "b");
  CHECK(hosts[1].slots == 8);
}

TEST_CASE("a resolved job is the same job", "[actors][cpu]") {
  const std::string more =
      "launcher:\n"
      "  kind: slurm\n"
      "  slurm: {nodes: 2, time: '10', environment: {A: 1, B: two, C: true}, workers: {nodes: 1}}\n"
      "network: {interface: ib0}\n";
  const JobConfig job = read(more);
  CHECK(join(job.document->errors(), "\n") == "");
  const JobConfig again = JobConfig::read(YamlDocument::parse(job.resolved()));
  CHECK(join(again.document->errors(), "\n") == "");
  CHECK(again.resolved() == job.resolved());
  CHECK(again.launcher.slurm.environment ==
        std::map<std::string, std::string>{{"A", "1"}, {"B", "two"}, {"C", "true"}});
  CHECK(again.launcher.slurm.time == "10");
  CHECK(again.resolved_arithmetic() == read("").resolved_arithmetic());
}

TEST_CASE("what a launcher cannot do is told by line and key", "[actors][cpu]") {
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"launcher: {kind: slrum}\n",
       "job.yaml:5:18: launcher.kind: unknown value \"slrum\", did you mean \"slurm\"? (one of "
       "local, "
       "mpirun, slurm)"},
      {"launcher: {kind: mpirun}\n",
       "job.yaml:5:11: launcher.hosts: names no host to start processes on: HOST or HOST:SLOTS is "
       "wanted, such as node1:4"},
      {"launcher: {kind: mpirun, hosts: ['a:x']}\n",
       "job.yaml:5:33: launcher.hosts: \"a:x\": HOST or HOST:SLOTS is wanted, such as node1:4"},
      {"launcher: {kind: mpirun, hosts: [a]}\nroles: {learner: {ranks: 2}}\n",
       "job.yaml:5:33: launcher.hosts: have 1 slot, fewer than the 2 ranks of roles.learner.ranks"},
      {"launcher: {kind: mpirun, hosts: [localhost]}\nplacement: colocated\n",
       "job.yaml:5:18: launcher.kind: mpirun starts the processes of placement: separate; with "
       "placement: colocated there is but one, and local is wanted"},
      {"launcher: {kind: slurm, slurm: {nodes: 2}}\nplacement: colocated\n",
       "job.yaml:5:18: launcher.kind: with placement: colocated the job is one process, but slurm "
       "asks for several nodes; leave placement out, or ask for one node"},
      {"launcher: {kind: slurm, slurm: {nodes: 2}}\nnetwork: {bind: 127.0.0.1}\n",
       "job.yaml:6:17: network.bind: \"127.0.0.1\" is the loopback, which the launcher's other "
       "hosts "
       "cannot reach: leave bind out, or give interface the name of one that the hosts share"},
      {"launcher: {kind: mpirun, hosts: [a]}\nnetwork: {interface: lo}\n",
       "job.yaml:6:22: network.interface: \"lo\" is the loopback, which the launcher's other hosts "
       "cannot reach: leave bind out, or give interface the name of one that the hosts share"},
      {"launcher: {slurm: {time: an hour}}\n",
       "job.yaml:5:26: launcher.slurm.time: \"an hour\" may not hold spaces, quotes or \"#\"\n"
       "job.yaml:5:26: launcher.slurm.time: \"an hour\" is no time; minutes, \"H:MM:SS\" or "
       "\"D-HH:MM:SS\" is wanted (in quotes)"},
      {"launcher: {slurm: {partition: 'a b'}}\n",
       "job.yaml:5:31: launcher.slurm.partition: \"a b\" may not hold spaces, quotes or \"#\""},
      {"launcher: {slurm: {directives: [exclusive]}}\n",
       "job.yaml:5:32: launcher.slurm.directives: \"exclusive\": an option of sbatch is wanted, "
       "such "
       "as --exclusive"},
      {"launcher: {slurm: {setup: ['']}}\n",
       "job.yaml:5:27: launcher.slurm.setup: has an item that is empty or of several lines; one "
       "word "
       "or line each is wanted"},
      {"launcher: {slurm: {environment: {a-b: 1}}}\n",
       "job.yaml:5:39: launcher.slurm.environment.a-b: is no name of an environment variable"},
      {"launcher: {slurm: {environment: {A: [1]}}}\n",
       "job.yaml:5:37: launcher.slurm.environment.A: text or a number is wanted"},
      {"launcher: {slurm: {workers: {node: 1}}}\n",
       "job.yaml:5:30: launcher.slurm.workers: unknown key \"node\", did you mean \"nodes\"?"},
      {"launcher: {remote_shell: []}\n",
       "job.yaml:5:26: launcher.remote_shell: is empty; a program and its arguments are wanted, "
       "such "
       "as [ssh, -q]"},
  };
  for (const auto& [more, message] : broken) {
    CAPTURE(more);
    CHECK(errors(more) == message);
  }
}

}  // namespace praetor
