#include <algorithm>
#include <cstdio>
#include <unordered_set>

#include "core/base/str.h"
#include "core/config/yaml_node.h"

namespace praetor {

namespace {

using Node = YamlReader::Node;

bool is_word(std::string_view text) {
  const auto letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '/';
  };
  const auto inner = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-';
  };
  if (text.empty() || !letter(text[0]) || !std::all_of(text.begin(), text.end(), inner))
    return false;
  // Booleans of YAML 1.1, which other readers still know.
  static const std::unordered_set<std::string_view> kNotText = {"y",
                                                                "Y",
                                                                "n",
                                                                "N",
                                                                "yes",
                                                                "Yes",
                                                                "YES",
                                                                "no",
                                                                "No",
                                                                "NO",
                                                                "on",
                                                                "On",
                                                                "ON",
                                                                "off",
                                                                "Off",
                                                                "OFF"};
  return !kNotText.contains(text) && classify_plain(text) == YamlScalar::kText;
}

std::string quote(std::string_view text) {
  if (is_word(text)) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\x%02x", byte);
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

/// Entries in the order readers asked for them, then those nobody asked for.
std::vector<const Node::Entry*> ordered(const Node& mapping) {
  std::vector<const Node::Entry*> out;
  std::unordered_set<std::string_view> done;
  for (const std::string& key : mapping.asked) {
    const Node::Entry* entry = mapping.find(key);
    if (entry && done.insert(key).second) out.push_back(entry);
  }
  for (const Node::Entry& entry : mapping.entries) {
    if (done.insert(entry.key).second) out.push_back(&entry);
  }
  return out;
}

std::string flow(const Node& node) {
  std::string out;
  switch (node.kind) {
    case YamlKind::kNull:
      return "null";
    case YamlKind::kScalar:
      return classify(node) == YamlScalar::kText ? quote(node.text) : node.text;
    case YamlKind::kList:
      for (const auto& item : node.items) out += (out.empty() ? "" : ", ") + flow(*item);
      return "[" + out + "]";
    case YamlKind::kMapping:
      for (const auto* entry : ordered(node)) {
        out += (out.empty() ? "" : ", ") + quote(entry->key) + ": " + flow(*entry->value);
      }
      return "{" + out + "}";
  }
  return out;
}

void block(const Node& mapping, size_t indent, std::string& out) {
  const std::string pad(indent, ' ');
  for (const auto* entry : ordered(mapping)) {
    const Node& value = *entry->value;
    out += pad + quote(entry->key) + ":";
    const bool mappings = std::any_of(value.items.begin(), value.items.end(), [](const auto& item) {
      return item->kind == YamlKind::kMapping && !item->entries.empty();
    });
    if (value.kind == YamlKind::kMapping && !value.entries.empty()) {
      out += "\n";
      block(value, indent + 2, out);
    } else if (value.kind == YamlKind::kList && mappings) {
      out += "\n";
      for (const auto& item : value.items) {
        out += pad + "  - ";
        if (item->kind == YamlKind::kMapping && !item->entries.empty()) {
          std::string lines;
          block(*item, indent + 4, lines);
          out += lines.substr(indent + 4);
        } else {
          out += flow(*item) + "\n";
        }
      }
    } else {
      out += ' ';
      out += flow(value);
      out += '\n';
    }
  }
}

}  // namespace

std::string emit_yaml(const Node& mapping) {
  if (mapping.entries.empty()) return "{}\n";
  std::string out;
  block(mapping, 0, out);
  return out;
}

}  // namespace praetor
