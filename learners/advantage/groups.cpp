#include "learners/advantage/groups.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "learners/advantage/whiten.h"
#include "learners/preference/prompt_groups.h"

namespace praetor {
namespace {

/// The scores of a group, float64.
std::vector<double> scores_of(const at::Tensor& score, const std::vector<int64_t>& group) {
  std::vector<double> out;
  for (const int64_t i : group) out.push_back(score.const_data_ptr<double>()[i]);
  return out;
}

bool all_equal(const std::vector<double>& scores) {
  return std::ranges::all_of(scores, [&](double s) { return s == scores.front(); });
}

Moments moments_of(const std::vector<double>& scores) {
  Moments out;
  for (const double s : scores) out.merge({1, s, 0});
  return out;
}

at::Tensor as_doubles(const at::Tensor& score) {
  if (score.dim() != 1)
    throw ShapeError("groups: the scores have ", score.dim(), " dimensions, but wanted 1");
  return score.detach().to(at::kCPU, at::kDouble).contiguous();
}

}  // namespace

Groups groups_of(const Experience& experience) {
  size_t voices = 1;
  for (const int32_t voice : experience.voice)
    voices = std::max(voices, static_cast<size_t>(voice) + 1);
  Groups out;
  for (PromptGroup& prompt : prompt_groups(experience, voices)) {
    if (!prompt.voices[0].empty()) out.push_back(std::move(prompt.voices[0]));
  }
  return out;
}

at::Tensor group_advantage(const at::Tensor& score,
                           const Groups& groups,
                           std::optional<double> std_eps) {
  const at::Tensor scores = as_doubles(score);
  at::Tensor out = at::zeros_like(scores);
  for (const std::vector<int64_t>& group : groups) {
    const std::vector<double> own = scores_of(scores, group);
    const bool lone = own.size() == 1;
    if (!lone && all_equal(own)) continue;
    const Moments moments = lone ? Moments{} : moments_of(own);
    const double deviation = lone ? 1.0 : std::sqrt(moments.variance());
    const double scale = std_eps ? deviation + *std_eps : 1.0;
    for (size_t k = 0; k < group.size(); ++k)
      out.mutable_data_ptr<double>()[group[k]] = (own[k] - moments.mean) / scale;
  }
  return out;
}

at::Tensor leave_one_out(const at::Tensor& score, const Groups& groups) {
  const at::Tensor scores = as_doubles(score);
  at::Tensor out = at::zeros_like(scores);
  for (const std::vector<int64_t>& group : groups) {
    const std::vector<double> own = scores_of(scores, group);
    const auto count = static_cast<double>(own.size());
    if (own.size() > 1 && all_equal(own)) continue;
    const double mean = moments_of(own).mean;
    for (size_t k = 0; k < group.size(); ++k) {
      out.mutable_data_ptr<double>()[group[k]] =
          own.size() == 1 ? own[k] : count / (count - 1) * (own[k] - mean);
    }
  }
  return out;
}

GroupSummary summarise_groups(const at::Tensor& score, const Groups& groups) {
  const at::Tensor scores = as_doubles(score);
  GroupSummary out;
  for (const std::vector<int64_t>& group : groups) {
    const std::vector<double> own = scores_of(scores, group);
    out.size += static_cast<double>(own.size());
    if (own.size() == 1) {
      ++out.lone;
      continue;
    }
    out.deviation += std::sqrt(moments_of(own).variance());
    out.equal += all_equal(own) ? 1 : 0;
  }
  const auto count = static_cast<double>(groups.size());
  const double comparable = count - static_cast<double>(out.lone);
  out.size /= std::max(count, 1.0);
  out.deviation /= std::max(count, 1.0);
  out.equal /= std::max(comparable, 1.0);
  return out;
}

}  // namespace praetor
