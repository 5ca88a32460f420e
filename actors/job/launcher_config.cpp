#include "actors/job/launcher_config.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "actors/launch/slurm_text.h"
#include "core/base/str.h"
#include "core/base/text.h"

namespace praetor {

namespace {

constexpr const char* kWanted = "HOST or HOST:SLOTS is wanted, such as node1:4";

bool is_word(const std::string& text) {
  return std::ranges::all_of(
      text, [](unsigned char c) { return std::isgraph(c) && c != '"' && c != '\'' && c != '#'; });
}

/// Text that becomes one word of a #SBATCH line.
std::string get_word(YamlReader& in, const std::string& key) {
  std::string text = in.get(key, "");
  if (!is_word(text)) {
    in.error_at(key, str("\"", printable(text), "\" may not hold spaces, quotes or \"#\""));
  }
  return text;
}

std::vector<std::string> get_words(YamlReader& in, const std::string& key) {
  std::vector<std::string> words = in.get(key, std::vector<std::string>{});
  for (const std::string& word : words) {
    if (word.empty() || word.find_first_of("\n\r") != word.npos)
      in.error_at(key,
                  "has an item that is empty or of several lines; one word or line each is wanted");
  }
  return words;
}

HostSlots parse_host(YamlReader& in, const std::string& text) {
  const size_t colon = text.rfind(':');
  HostSlots out{.host = text.substr(0, colon)};
  const std::string slots = colon == text.npos ? "1" : text.substr(colon + 1);
  const bool number = !slots.empty() && slots.size() < 6 &&
                      std::ranges::all_of(slots, [](unsigned char c) { return std::isdigit(c); });
  if (number) out.slots = std::stoll(slots);
  if (out.host.empty() || !is_word(out.host) || out.host.front() == '-' ||
      out.host.find(',') != out.host.npos || !number || out.slots < 1)
    in.error_at("hosts", str("\"", printable(text), "\": ", kWanted));
  return out;
}

void read_nodes(SlurmNodes& out, YamlReader& in, int64_t nodes, int64_t least) {
  out.nodes = in.get("nodes", nodes, closed(static_cast<double>(least), 100000));
  out.partition = get_word(in, "partition");
  out.constraint = get_word(in, "constraint");
  out.memory = get_word(in, "memory");
  out.cpus_per_node = in.get("cpus_per_node", out.cpus_per_node, closed(0, 4096));
  out.gpus_per_node = in.get("gpus_per_node", out.gpus_per_node, closed(0, 64));
}

std::map<std::string, std::string> read_environment(YamlReader in) {
  std::map<std::string, std::string> out;
  for (const std::string& name : in.keys()) {
    const bool letters =
        std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) || c == '_'; });
    if (!letters || std::isdigit(static_cast<unsigned char>(name.front())))
      in.error_at(name, "is no name of an environment variable");
    // Numbers and booleans are as good as text here.
    const std::string json = in.get_optional_json(name).value_or("");
    const bool quoted = json.size() >= 2 && json.front() == '"';
    out[name] = quoted ? in.get(name, "") : json;
    if (!quoted && (json.starts_with('{') || json.starts_with('[') || json == "null"))
      in.error_at(name, "text or a number is wanted");
  }
  return out;
}

}  // namespace

SlurmConfig SlurmConfig::from_yaml(YamlReader in) {
  SlurmConfig c;
  read_nodes(c.all, in, 1, 1);
  c.account = get_word(in, "account");
  c.qos = get_word(in, "qos");
  c.time = get_word(in, "time");
  if (!c.time.empty() && !parse_slurm_time(c.time)) {
    in.error_at("time",
                str("\"",
                    printable(c.time),
                    "\" is no time; minutes, \"H:MM:SS\" or \"D-HH:MM:SS\" is wanted (in quotes)"));
  }
  c.requeue = in.get("requeue", c.requeue);
  c.signal = in.get("signal", c.signal, closed(0, 65535));
  c.margin = in.get("margin", c.margin, closed(0, 86400));
  c.stages = in.get("stages", "together", {"together", "chain"});
  c.modules = get_words(in, "modules");
  c.environment = read_environment(in.child("environment"));
  c.setup = get_words(in, "setup");
  c.container = get_words(in, "container");
  c.program = in.get("program", "");
  c.directives = get_words(in, "directives");
  for (const std::string& directive : c.directives) {
    if (!directive.starts_with('-'))
      in.error_at("directives",
                  str("\"",
                      printable(directive),
                      "\": an option of sbatch is wanted, such as --exclusive"));
  }
  YamlReader workers = in.child("workers");
  read_nodes(c.workers, workers, 0, 0);
  workers.reject_unknown_keys();
  in.reject_unknown_keys();
  return c;
}

LauncherConfig LauncherConfig::from_yaml(YamlReader in) {
  LauncherConfig c;
  c.kind = in.get("kind", c.kind, {"local", "mpirun", "slurm"});
  for (const std::string& host : in.get("hosts", std::vector<std::string>{}))
    c.hosts.push_back(parse_host(in, host));
  if (c.kind == "mpirun" && c.hosts.empty())
    in.error_at("hosts", str("names no host to start processes on: ", kWanted));
  c.remote_shell = in.get("remote_shell", c.remote_shell);
  if (c.remote_shell.empty() || c.remote_shell.front().empty())
    in.error_at("remote_shell",
                "is empty; a program and its arguments are wanted, such as [ssh, -q]");
  c.slurm = SlurmConfig::from_yaml(in.child("slurm"));
  in.reject_unknown_keys();
  return c;
}

bool LauncherConfig::spans_hosts() const {
  if (kind == "slurm") return slurm.all.nodes > 1 || slurm.heterogeneous();
  return kind == "mpirun" &&
         !std::ranges::all_of(hosts, [](const HostSlots& h) { return is_this_host(h.host); });
}

bool is_this_host(const std::string& host) {
  if (host == "localhost" || host == "::1" || host.starts_with("127.")) return true;
  char name[256] = {};
  if (::gethostname(name, sizeof(name) - 1) != 0) return false;
  const std::string own = name;
  return host == own || host == own.substr(0, own.find('.'));
}

}  // namespace praetor
