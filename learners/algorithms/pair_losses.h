#pragma once

#include "learners/algorithms/online_pairs.h"

namespace praetor {

/// Online DPO (Guo et al. 2024, arXiv:2402.04792): -log sigma(beta h), h the difference of the
/// log-ratios of the preferred (first) and the other one; with label smoothing e
/// -(1-e) log sigma(beta h) - e log sigma(-beta h).
PairLosses online_dpo_loss(const PairLogprobs& pairs, double beta, double label_smoothing);

/// XPO (Xie et al. 2024, arXiv:2405.21046): the same and alpha log pi of the response that is not
/// the policy's, which moves probability away from what the reference says already.
PairLosses xpo_loss(const PairLogprobs& pairs, double beta, double alpha);

/// Online IPO (Calandriello et al. 2024, arXiv:2403.08635), soft labels p = P(first preferred):
/// p (h - 1/(2 tau))^2 + (1-p) (h + 1/(2 tau))^2; `hard`: p rounded, a tie stays 1/2.
PairLosses ipo_loss(const PairLogprobs& pairs, double tau, bool hard);

/// INPO (Zhang et al. 2024, arXiv:2407.00617): (h_t - 1/(2 eta))^2, h_t = log pi(w)/pi(l) -
/// (tau/eta) log ref(w)/ref(l) - ((eta-tau)/eta) log anchor(w)/anchor(l).
PairLosses inpo_loss(const PairLogprobs& pairs, double eta, double tau);

/// SPPO (Wu et al. 2024, arXiv:2405.00675), pair form: half the sum over both of
/// (log pi/anchor - eta (win - 1/2))^2; `hard`: win is 1 for the first and 0 for the second.
PairLosses sppo_loss(const PairLogprobs& pairs, double eta, bool hard);

}  // namespace praetor
