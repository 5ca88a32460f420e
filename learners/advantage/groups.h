#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "core/data/experience.h"

namespace praetor {

/// The policy's own samples of each prompt, as indices of sequences; prompts in the order in which
/// they first come. A group may have lost samples.
using Groups = std::vector<std::vector<int64_t>>;
Groups groups_of(const Experience& experience);

/// Scores against those of the same prompt (arXiv:2402.03300, section 4.1).
///
///   A_i = (s_i - mean) / (std + std_eps)     std with Bessel's correction
///   A_i = s_i - mean                         without std_eps (arXiv:2503.20783)
///
/// A group whose scores are all equal has advantages of exactly 0. A group of one sample has mean 0
/// and std 1: there is nothing to compare it with.
///
/// @param score  [N]; entries outside the groups may be NaN
/// @return       [N] float64, 0 outside the groups
at::Tensor group_advantage(const at::Tensor& score,
                           const Groups& groups,
                           std::optional<double> std_eps);

/// A_i = s_i - mean of the others of its group = K / (K - 1) (s_i - mean), arXiv:2402.14740. A
/// sample without others keeps its score.
/// @return  [N] float64, 0 outside the groups
at::Tensor leave_one_out(const at::Tensor& score, const Groups& groups);

/// What groups have to teach.
struct GroupSummary {
  double size = 0;       ///< samples of a group, mean
  double deviation = 0;  ///< standard deviation (Bessel) of a group's scores, mean; 0 of one sample
  double equal = 0;      ///< share of the groups of two and more whose scores are all equal
  int64_t lone = 0;      ///< groups of one sample
};
GroupSummary summarise_groups(const at::Tensor& score, const Groups& groups);

}  // namespace praetor
