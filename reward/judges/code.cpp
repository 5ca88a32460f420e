#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/bounded_regex.h"
#include "core/base/error.h"
#include "core/base/random_hex.h"
#include "core/base/text.h"
#include "reward/judges/code_harness.h"
#include "reward/judges/fields.h"
#include "reward/judges/registry.h"
#include "reward/judges/text_tools.h"
#include "reward/sandbox/sandbox.h"

namespace praetor {

namespace {

namespace fs = std::filesystem;

using nlohmann::json;
using std::chrono::milliseconds;

/// Passes when the Python code of the response passes every test of its row, each in a fresh
/// interpreter in a sandbox.
///   score = 1 or 0; with `fraction` the fraction of tests that pass
struct CodeConfig {
  std::optional<Field> tests;        ///< a text, a list of texts, or a list of {input, output}
  std::optional<Field> setup;        ///< a text that each test begins with
  std::optional<Field> entry_point;  ///< what each test's function `check` is called with
  std::optional<Field> prefix;       ///< a text that the code begins with
  std::string extract = "fence";     ///< fence: the last fence of Python, else the first; whole
  bool fraction = false;
  Missing missing = Missing::kError;
  fs::path python = "/usr/bin/python3";
};

/// What a row asks: Python to run behind the code, or a program's input and output.
struct Test {
  std::string text;
  std::optional<std::string> input, output;
};

/// What came of one test; `why` is empty when it passed.
struct Outcome {
  bool passed = false;
  bool timeout = false;
  std::string why;
};

std::optional<double> number_of(std::string_view token) {
  double value = 0;
  if (token.starts_with('+')) token.remove_prefix(1);
  const auto [end, failure] = std::from_chars(token.data(), token.data() + token.size(), value);
  if (failure != std::errc() || end != token.data() + token.size()) return std::nullopt;
  return value;
}

/// The same words between white space; numbers may differ by 1e-6, relative above 1.
bool same_output(std::string_view found, std::string_view wanted) {
  const auto a = words_of(found), b = words_of(wanted);
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    const auto x = number_of(a[i]), y = number_of(b[i]);
    if (!x || !y || !(std::abs(*x - *y) <= 1e-6 * std::max(1.0, std::abs(*y)))) return false;
  }
  return true;
}

std::string last_line(std::string_view text) {
  text = strip(text);
  const size_t at = text.rfind('\n');
  return printable(at == text.npos ? text : text.substr(at + 1), 200);
}

class CodeJudge final : public Judge {
 public:
  CodeJudge(CodeConfig config, std::unique_ptr<const Sandbox> sandbox)
      : config_(std::move(config)),
        sandbox_(std::move(sandbox)),
        fence_("(*LF)(?ms)^[ \\t]*```[ \\t]*([A-Za-z0-9_+-]*)[^\\n`]*\\n(.*?)^[ \\t]*```[ \\t]*$") {
  }

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    const auto given = config_.tests->json(sample);
    if (!given) return missing_field(*config_.tests, config_.missing);
    const std::vector<Test> tests = tests_of(*given);
    const auto code = code_of(sample, deadline);
    if (!code) return {.score = 0.0, .passed = false, .reason = "there is no code fence"};
    const std::string setup = text_of(config_.setup, sample);
    const std::string call = call_of(sample);
    size_t passed = 0;
    std::string first;
    for (size_t i = 0; i < tests.size(); ++i) {
      const Outcome outcome = run(tests[i], *code, setup, call, deadline);
      passed += outcome.passed ? 1 : 0;
      if (!outcome.passed && first.empty()) first = str("test ", i + 1, ": ", outcome.why);
      if (!outcome.passed && (!config_.fraction || outcome.timeout)) break;
    }
    const bool all = passed == tests.size();
    const double share = static_cast<double>(passed) / static_cast<double>(tests.size());
    return {.score = config_.fraction ? share
                     : all            ? 1.0
                                      : 0.0,
            .passed = all,
            .reason = all ? str(passed, passed == 1 ? " test passes" : " tests pass") : first};
  }

  /// Every test bounds itself; this is for rows with many.
  std::optional<milliseconds> usual_timeout() const override { return milliseconds(600'000); }

 private:
  std::vector<Test> tests_of(const json& given) const {
    std::vector<Test> out;
    for (const json& test : given.is_array() ? given : json::array({given})) {
      if (test.is_string()) {
        out.push_back({.text = test.get<std::string>(), .input = {}, .output = {}});
      } else if (test.is_object() && test.contains("input") && test.contains("output") &&
                 test["input"].is_string() && test["output"].is_string()) {
        out.push_back({.text = {}, .input = test["input"], .output = test["output"]});
      } else {
        throw DataError(config_.tests->name(),
                        ": a test is a text (Python), or {\"input\": text, \"output\": text}");
      }
    }
    if (out.empty()) throw DataError(config_.tests->name(), ": is empty; a row needs a test");
    return out;
  }

  static std::string text_of(const std::optional<Field>& field, const Sample& sample) {
    return field ? field->text(sample).value_or("") : "";
  }

  std::string call_of(const Sample& sample) const {
    if (!config_.entry_point) return "";
    const auto name = config_.entry_point->text(sample);
    return name ? str("\ncheck(", *name, ")\n") : "";
  }

  std::optional<std::string> code_of(const Sample& sample, const Deadline& deadline) const {
    const std::string prefix = text_of(config_.prefix, sample);
    if (config_.extract == "whole") return prefix + sample.response;
    std::optional<std::string> first, python;
    for (size_t from = 0;;) {
      const auto match = fence_.search(sample.response, from, deadline);
      if (!match) break;
      const std::string language = lower_case(match->groups[0].value_or(""));
      const std::string text(match->groups[1].value_or(""));
      if (!first) first = text;
      if (language == "python" || language == "py" || language == "python3") python = text;
      from = match->end;
    }
    if (!first) return std::nullopt;
    return prefix + (python ? *python : *first);
  }

  Outcome run(const Test& test,
              const std::string& code,
              const std::string& setup,
              const std::string& call,
              const Deadline& deadline) const {
    const SandboxLimits& most = sandbox_->limits();
    json request = {{"kind", test.input ? "run" : "check"},
                    {"code", code},
                    {"test", setup + "\n" + test.text + call},
                    {"limits",
                     {{"memory", most.memory_bytes},
                      {"scratch", most.scratch_bytes},
                      {"processes", most.processes},
                      {"cpu", most.cpu_seconds}}}};
    const std::string text = request.dump(-1, ' ', true, json::error_handler_t::replace);
    std::string input;
    for (int shift = 56; shift >= 0; shift -= 8)
      input += static_cast<char>(text.size() >> static_cast<unsigned>(shift) & 0xffU);
    const std::string expected = test.input ? "" : random_hex(16);
    input += text + (test.input ? *test.input : expected);
    const SandboxResult result =
        sandbox_->run({config_.python.string(), "-s", "-B", "-c", kCodeHarness}, input, deadline);
    return test.input ? outcome_of_run(test, result) : outcome_of_check(test, expected, result);
  }

  /// The ends that both kinds share: limits.
  std::optional<Outcome> over_limit(const SandboxResult& result) const {
    using End = SandboxResult::End;
    const SandboxLimits& most = sandbox_->limits();
    switch (result.end) {
      case End::kWall:
        return Outcome{.timeout = true,
                       .why = str("no end after ", most.wall.count() / 1000, " s")};
      case End::kCpu:
        return Outcome{.timeout = true,
                       .why = str("no end after ", most.cpu_seconds, " s of computing")};
      case End::kMemory:
        return Outcome{.why = "out of memory"};
      case End::kOutput:
        return Outcome{.why = str("prints more than ", most.output_bytes, " bytes")};
      case End::kExited:
        return std::nullopt;
    }
    return std::nullopt;
  }

  Outcome outcome_of_check(const Test& test,
                           const std::string& expected,
                           const SandboxResult& result) const {
    if (const auto limit = over_limit(result)) return *limit;
    const json answer = json::parse(result.output, nullptr, /*allow_exceptions=*/false);
    if (!answer.is_object() || answer.value("secret", "") != expected)
      return {.why = str("the program ends early, with exit status ", result.status)};
    const std::string end = answer.value("end", "");
    if (end == "pass") return {.passed = true};
    if (end == "memory") return {.why = "out of memory"};
    const std::string what = answer.value("what", ""), said = answer.value("said", "");
    std::string why = what + (said.empty() ? "" : ": " + said);
    if (end == "fail") why = "fails: " + std::string(strip(test.text)) + ' ' + why;
    return {.why = printable(why, 300)};
  }

  Outcome outcome_of_run(const Test& test, const SandboxResult& result) const {
    if (const auto limit = over_limit(result)) return *limit;
    if (result.status != 0) {
      return {.why = str("ends with exit status ", result.status, ": ", last_line(result.errors))};
    }
    if (same_output(result.output, *test.output)) return {.passed = true};
    return {.why = str("prints \"",
                       printable(strip(result.output), 120),
                       "\", not \"",
                       printable(strip(*test.output), 120),
                       '"')};
  }

  CodeConfig config_;
  std::unique_ptr<const Sandbox> sandbox_;
  BoundedRegex fence_;
};

SandboxLimits limits_from_yaml(YamlReader& in) {
  SandboxLimits out;
  out.wall = milliseconds(1000 * in.get("wall_seconds", out.wall.count() / 1000, closed(1, 600)));
  out.cpu_seconds = in.get("cpu_seconds", out.cpu_seconds, closed(1, 600));
  out.memory_bytes = in.get("memory_mb", out.memory_bytes >> 20, closed(64, 1 << 20)) << 20;
  out.output_bytes = in.get("output_kb", out.output_bytes >> 10, closed(1, 1 << 20)) << 10;
  out.processes = in.get("processes", out.processes, closed(1, 4096));
  return out;
}

std::optional<Field> optional_text(YamlReader& in, const std::string& key) {
  return in.has(key) ? std::optional(Field::from_yaml(in, key, "")) : std::nullopt;
}

}  // namespace

std::shared_ptr<const Judge> make_code(YamlReader& in) {
  CodeConfig config;
  config.tests = Field::of_metadata(in, "tests", "metadata.tests");
  config.setup = optional_text(in, "setup");
  config.entry_point = optional_text(in, "entry_point");
  config.prefix = optional_text(in, "prefix");
  config.extract = in.get("extract", config.extract, {"fence", "whole"});
  config.fraction = in.get("fraction", config.fraction);
  config.missing = missing_from_yaml(in);
  config.python = in.get("python", config.python.string());
  std::vector<fs::path> folders;
  for (const std::string& folder : in.get("folders", std::vector<std::string>())) {
    folders.emplace_back(folder);
    if (!folders.back().is_absolute() || !fs::is_directory(folders.back()))
      in.error_at("folders", str("\"", printable(folder), "\" is not a folder's absolute path"));
  }
  const SandboxLimits limits = limits_from_yaml(in);
  if (!config.python.is_absolute() || !fs::exists(config.python)) {
    in.error_at(
        "python",
        str("there is no ", printable(config.python.string()), "; an absolute path is wanted"));
    return nullptr;
  }
  try {
    return std::make_shared<CodeJudge>(std::move(config),
                                       std::make_unique<Sandbox>(limits, std::move(folders)));
  } catch (const MissingInput& failure) {
    in.error_at("kind", failure.what());
    return nullptr;
  }
}

}  // namespace praetor
