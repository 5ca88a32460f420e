#pragma once

namespace praetor {

/// The coefficient of the KL penalty, fixed or driven towards a target (arXiv:1909.08593, §2.2).
///
///   e = clip(kl / target - 1, -0.2, 0.2);   coefficient <- coefficient (1 + e sequences / horizon)
class KlController {
 public:
  static KlController fixed(double coefficient) { return {coefficient, 0, 0}; }
  /// @throws InvalidArgument unless target and horizon are above 0
  static KlController adaptive(double coefficient, double target, double horizon);

  double coefficient() const { return coefficient_; }
  void set_coefficient(double coefficient) { coefficient_ = coefficient; }
  /// @param kl         mean over the step's sequences of their summed k1, nats
  /// @param sequences  how many there were, every rank
  void update(double kl, double sequences);

 private:
  KlController(double coefficient, double target, double horizon)
      : coefficient_(coefficient), target_(target), horizon_(horizon) {}
  double coefficient_;
  double target_;
  double horizon_;  ///< 0: fixed
};

}  // namespace praetor
