#include "reward/judges/math_latex.h"

#include <cstddef>
#include <vector>

#include "core/base/str.h"

namespace praetor {

namespace {

/// Content of the braces that open at `open`, when they close.
std::optional<std::string_view> braced(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t at = open; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;  // the next character is escaped
    } else if (text[at] == '{') {
      ++depth;
    } else if (text[at] == '}' && --depth == 0) {
      return text.substr(open + 1, at - open - 1);
    }
  }
  return std::nullopt;
}

std::optional<std::string_view> last_of(std::string_view text, std::string_view command) {
  const size_t at = text.rfind(command);
  if (at == std::string_view::npos) return std::nullopt;
  return braced(text, at + command.size() - 1);
}

void replace(std::string& text, std::string_view what, std::string_view by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

/// Text between the occurrences of `mark`.
std::vector<std::string> split(const std::string& text, std::string_view mark) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, begin)) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + mark.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

/// \sqrt3 to \sqrt{3}.
std::string brace_roots(const std::string& text) {
  const auto parts = split(text, "\\sqrt");
  std::string out = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    if (part.empty() || part[0] == '{') {
      out += str("\\sqrt", part);
    } else {
      out += str("\\sqrt{", part[0], "}", part.substr(1));
    }
  }
  return out;
}

/// \frac12 and \frac1{2} to \frac{1}{2}; text of another form stays as it is.
std::string brace_fractions(const std::string& text) {
  const auto parts = split(text, "\\frac");
  std::string out = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    out += "\\frac";
    if (!part.empty() && part[0] == '{') {
      out += part;
      continue;
    }
    if (part.size() < 2) return text;
    out += str("{", part[0], "}");
    out += part[1] == '{' ? part.substr(1) : str("{", part[1], "}", part.substr(2));
  }
  return out;
}

bool is_integer(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos &&
         (text == "0" || text[0] != '0');
}

}  // namespace

std::optional<std::string_view> last_boxed(std::string_view text) {
  if (text.find("\\boxed{") != std::string_view::npos) return last_of(text, "\\boxed{");
  return last_of(text, "\\fbox{");
}

std::string normalise_latex(std::string_view original) {
  std::string text(original);
  replace(text, "\n", "");
  replace(text, "\\!", "");
  replace(text, "\\\\", "\\");
  replace(text, "tfrac", "frac");
  replace(text, "dfrac", "frac");
  replace(text, "\\left", "");
  replace(text, "\\right", "");
  replace(text, "^{\\circ}", "");
  replace(text, "^\\circ", "");
  replace(text, "\\$", "");
  text = text.substr(0, text.find("\\text{ "));
  replace(text, "\\%", "");
  replace(text, " .", " 0.");
  replace(text, "{.", "{0.");
  if (text.starts_with('.')) text = str("0", text);
  if (const auto sides = split(text, "="); sides.size() == 2 && sides[0].size() <= 2)
    text = sides[1];
  text = brace_roots(text);
  replace(text, " ", "");
  text = brace_fractions(text);
  if (text == "0.5") return "\\frac{1}{2}";
  const auto terms = split(text, "/");
  if (terms.size() == 2 && is_integer(terms[0]) && is_integer(terms[1])) {
    return str("\\frac{", terms[0], "}{", terms[1], "}");
  }
  return text;
}

}  // namespace praetor
