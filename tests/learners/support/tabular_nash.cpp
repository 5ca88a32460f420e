#include "tests/learners/support/tabular_nash.h"

#include <cmath>

namespace praetor::testing {

namespace {

Distribution normalised(Distribution values) {
  double sum = 0;
  for (const double value : values) sum += value;
  for (double& value : values) value /= sum;
  return values;
}

}  // namespace

Distribution geometric_mixture(const Distribution& pi, const Distribution& mu, double share) {
  Distribution out;
  for (size_t y = 0; y < pi.size(); ++y)
    out.push_back(std::pow(pi[y], 1 - share) * std::pow(mu[y], share));
  return normalised(std::move(out));
}

Distribution preference_over(const PreferenceMatrix& game, const Distribution& pi) {
  Distribution out;
  for (const auto& row : game) {
    double sum = 0;
    for (size_t y = 0; y < pi.size(); ++y) sum += row[y] * pi[y];
    out.push_back(sum);
  }
  return out;
}

Distribution nash_md_step(const PreferenceMatrix& game,
                          const Distribution& pi,
                          const Distribution& mu,
                          double eta,
                          double tau) {
  Distribution mixed = geometric_mixture(pi, mu, eta * tau);
  const Distribution wins = preference_over(game, mixed);
  for (size_t y = 0; y < mixed.size(); ++y) mixed[y] *= std::exp(eta * wins[y]);
  return normalised(std::move(mixed));
}

Distribution regularised_nash(const PreferenceMatrix& game, const Distribution& mu, double tau) {
  Distribution pi = mu;
  // eta_t = 2 / (tau (t + 2)) of the paper; its bound on the KL falls as 1 / steps.
  for (int step = 0; step < 200'000; ++step)
    pi = nash_md_step(game, pi, mu, 2 / (tau * (step + 2)), tau);
  return pi;
}

double total_variation(const Distribution& a, const Distribution& b) {
  double sum = 0;
  for (size_t y = 0; y < a.size(); ++y) sum += std::abs(a[y] - b[y]);
  return sum / 2;
}

}  // namespace praetor::testing
