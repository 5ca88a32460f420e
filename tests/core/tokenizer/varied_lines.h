#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace praetor::testing {

/// Lines of many scripts and shapes by the rule of tests/golden/varied_lines.py, whose comments say
/// what they are; `tables` of tests/golden/tokenizer_lines.json.
std::vector<std::string> made_lines(const nlohmann::json& tables);

/// Strings of the data folder's files, by the same rule.
std::vector<std::string> data_lines(const nlohmann::json& tables,
                                    const std::filesystem::path& data);

/// FNV-1a, 32 bits, of each id as four bytes.
uint32_t hash_ids(const std::vector<int64_t>& ids, uint32_t state = 0x811C9DC5);

}  // namespace praetor::testing
