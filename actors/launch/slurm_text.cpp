#include "actors/launch/slurm_text.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {

constexpr int64_t kMostHosts = 100'000;  // of one list; more is a slip in a range
constexpr size_t kMostDigits = 9;

bool is_number(const std::string& text) {
  return !text.empty() && text.size() <= kMostDigits &&
         std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c); });
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> out;
  std::istringstream in(text + at);
  for (std::string part; std::getline(in, part, at);) out.push_back(part);
  return out;
}

/// The same at the commas that stand outside of brackets.
std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> out(1);
  int depth = 0;
  for (const char c : text) {
    if (c == '[') ++depth;
    if (c == ']') --depth;
    if (c == ',' && depth == 0) {
      out.emplace_back();
    } else {
      out.back() += c;
    }
  }
  return out;
}

[[noreturn]] void refuse(const std::string& text) {
  throw DataError("\"",
                  printable(text),
                  "\" is not a host list; names such as n1, n[1-3] or n[01-08,11] are wanted");
}

/// "01-03" to 01, 02, 03: the width of the first number is kept.
std::vector<std::string> expand_range(const std::string& range, const std::string& whole) {
  const size_t dash = range.find('-');
  const std::string first = range.substr(0, dash);
  const std::string last = dash == range.npos ? first : range.substr(dash + 1);
  if (!is_number(first) || !is_number(last)) refuse(whole);
  const int64_t from = std::stoll(first), to = std::stoll(last);
  if (to < from || to - from >= kMostHosts) refuse(whole);
  std::vector<std::string> out;
  for (int64_t number = from; number <= to; ++number) {
    std::string text = std::to_string(number);
    if (text.size() < first.size()) text.insert(0, first.size() - text.size(), '0');
    out.push_back(text);
  }
  return out;
}

std::vector<std::string> expand_name(const std::string& name) {
  const size_t open = name.find('['), close = name.find(']');
  if (open == name.npos && close == name.npos && !name.empty()) return {name};
  if (open == name.npos || close == name.npos || close < open) refuse(name);
  const std::string rest = name.substr(close + 1);
  const std::vector<std::string> tails =
      rest.empty() ? std::vector<std::string>{""} : expand_name(rest);
  std::vector<std::string> out;
  for (const std::string& range : split(name.substr(open + 1, close - open - 1), ',')) {
    for (const std::string& number : expand_range(range, name)) {
      for (const std::string& tail : tails)
        out.push_back(std::string(name.substr(0, open)).append(number).append(tail));
    }
  }
  return out;
}

}  // namespace

std::optional<std::chrono::seconds> parse_slurm_time(const std::string& text) {
  const size_t dash = text.find('-');
  const bool days = dash != text.npos;
  if (days && !is_number(text.substr(0, dash))) return std::nullopt;
  const std::vector<std::string> parts = split(days ? text.substr(dash + 1) : text, ':');
  if (parts.empty() || parts.size() > 3 || !std::ranges::all_of(parts, is_number))
    return std::nullopt;
  // After days the first number is hours; without them one or two numbers begin with minutes.
  static constexpr int64_t kUnits[] = {3600, 60, 1};
  const size_t first = days || parts.size() == 3 ? 0 : 1;
  int64_t seconds = days ? 86400 * std::stoll(text.substr(0, dash)) : 0;
  for (size_t i = 0; i < parts.size(); ++i) seconds += kUnits[first + i] * std::stoll(parts[i]);
  return std::chrono::seconds(seconds);
}

std::vector<std::string> expand_host_list(const std::string& text) {
  std::vector<std::string> out;
  for (const std::string& name : split_names(text)) {
    for (std::string& host : expand_name(name)) out.push_back(std::move(host));
    if (static_cast<int64_t>(out.size()) > kMostHosts) refuse(text);
  }
  return out;
}

std::vector<std::string> living_nodes(const std::vector<std::string>& nodes,
                                      const std::string& sinfo_lines) {
  std::set<std::string> dead;
  std::istringstream lines(sinfo_lines);
  for (std::string node, state; lines >> node >> state;) {
    const bool down =
        state.starts_with("down") || state.starts_with("fail") || state.starts_with("unk");
    if (down || state.ends_with('*')) dead.insert(node);
  }
  std::vector<std::string> out;
  std::ranges::copy_if(nodes, std::back_inserter(out), [&](const std::string& node) {
    return !dead.contains(node);
  });
  return out.empty() ? nodes : out;
}

}  // namespace praetor
