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

double exploitability(const PreferenceMatrix& game,
                      const Distribution& pi,
                      const Distribution& mu,
                      double tau) {
  // The best answer is mu exp(P(y > pi) / tau), normalised; what it gains is tau log of its sum.
  const Distribution wins = preference_over(game, pi);
  double sum = 0, divergence = 0;
  for (size_t y = 0; y < pi.size(); ++y) {
    sum += mu[y] * std::exp(wins[y] / tau);
    divergence += pi[y] * std::log(pi[y] / mu[y]);
  }
  return tau * std::log(sum) + tau * divergence - 0.5;
}

std::vector<double> bradley_terry_scores(const PreferenceMatrix& game) {
  const size_t n = game.size();
  std::vector<double> strength(n, 1.0);
  for (int step = 0; step < 1000; ++step) {
    std::vector<double> next(n);
    double log_sum = 0;
    for (size_t y = 0; y < n; ++y) {
      double wins = 0, weight = 0;
      for (size_t z = 0; z < n; ++z) {
        if (z == y) continue;
        wins += game[y][z];
        weight += 1 / (strength[y] + strength[z]);
      }
      next[y] = wins / weight;
      log_sum += std::log(next[y]);
    }
    for (double& s : next) s /= std::exp(log_sum / static_cast<double>(n));
    strength = std::move(next);
  }
  for (double& s : strength) s = std::log(s);
  return strength;
}

double total_variation(const Distribution& a, const Distribution& b) {
  double sum = 0;
  for (size_t y = 0; y < a.size(); ++y) sum += std::abs(a[y] - b[y]);
  return sum / 2;
}

}  // namespace praetor::testing
