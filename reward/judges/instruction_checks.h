#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/deadline.h"

namespace praetor {

/// True when a response, which is not blank, follows one instruction. From any thread.
using InstructionCheck = std::function<bool(std::string_view response, const Deadline& deadline)>;

/// The check of an instruction of IFEval (Zhou et al. 2023, arXiv:2311.07911) with its arguments,
/// for example "length_constraints:number_words" with {"relation": "at least", "num_words": 300}.
/// Arguments that are null count as absent.
/// @throws DataError naming the instruction for an id that is none of them, and for an argument
/// that is missing, unknown or of the wrong kind
InstructionCheck make_instruction_check(const std::string& id, const nlohmann::json& arguments);

/// The ids of all 25 instructions.
const std::vector<std::string>& instruction_ids();

/// The texts of which one must follow an instruction when it is checked loosely: the response with
/// and without its first line, last line and both, and each of these without "*". Blank ones are
/// left out.
std::vector<std::string> loose_variants(std::string_view response);

}  // namespace praetor
