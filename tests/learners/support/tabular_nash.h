#pragma once

#include <vector>

namespace praetor::testing {

using Distribution = std::vector<double>;
using PreferenceMatrix = std::vector<std::vector<double>>;  ///< [y][y'] P(y > y')

/// pi^(1-share) mu^share, normalised.
Distribution geometric_mixture(const Distribution& pi, const Distribution& mu, double share);
/// P(y > pi) of each y.
Distribution preference_over(const PreferenceMatrix& game, const Distribution& pi);
/// One step of tabular Nash-MD (arXiv:2312.00886, section 4).
Distribution nash_md_step(const PreferenceMatrix& game,
                          const Distribution& pi,
                          const Distribution& mu,
                          double eta,
                          double tau);
/// The Nash equilibrium of the game regularised with tau towards mu: the limit of those steps.
Distribution regularised_nash(const PreferenceMatrix& game, const Distribution& mu, double tau);
double total_variation(const Distribution& a, const Distribution& b);

}  // namespace praetor::testing
