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
/// How much the best answer to pi gains against it in that game,
///   max_q P(q > pi) - tau KL(q, mu) + tau KL(pi, mu) - 1/2;
/// 0 at the equilibrium alone.
double exploitability(const PreferenceMatrix& game,
                      const Distribution& pi,
                      const Distribution& mu,
                      double tau);
/// Scores s, of mean 0, whose sigma(s_y - s_y') has the largest likelihood of the game when all
/// pairs are compared equally often: Zermelo's fixed point (Hunter 2004,
/// doi:10.1214/aos/1079120141).
std::vector<double> bradley_terry_scores(const PreferenceMatrix& game);
double total_variation(const Distribution& a, const Distribution& b);

}  // namespace praetor::testing
