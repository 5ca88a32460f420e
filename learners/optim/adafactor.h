#pragma once

#include <vector>

#include "learners/optim/optimizer.h"

namespace praetor {

/// Adafactor (arXiv:1804.04235), the arithmetic of transformers.optimization.Adafactor.
///
///   b2 = 1 - t^decay_rate;  s = g^2 + eps_square
///   matrix [R,C]:  r <- b2 r + (1 - b2) mean over C of s;  c <- b2 c + (1 - b2) mean over R of s
///                  u = g / sqrt(r c / mean(r))
///   vector:        v <- b2 v + (1 - b2) s;  u = g / sqrt(v)
///   u <- lr u / max(1, rms(u) / clip_threshold);  with beta1: m <- b1 m + (1 - b1) u, u = m
///   w <- w - lr decay w - u;  lr times max(eps_scale, rms(w)) with scale_parameter
///
/// r ("exp_avg_sq_row") and c ("exp_avg_sq_col") are kept whole on every rank. Their sums, and
/// those behind the root mean squares, are taken over what each rank owns, in float64, and added in
/// rank order, so that ranks hold what one process would, but for the rounding of those sums. m
/// ("exp_avg") and v ("exp_avg_sq") are cut as the weights are, and where these are; r and c are in
/// the processor's memory.
class Adafactor final : public Optimizer {
 public:
  /// @throws InvalidArgument as the base does, and naming a parameter of three or more dimensions
  Adafactor(OptimizerSetup setup, OptimizerConfig config);

 private:
  /// Sums over a parameter; of all ranks once they are added.
  struct Sums {
    double elements = 0;  ///< with a gradient
    double weights = 0;   ///< of their squares
    double updates = 0;   ///< of their squares
    std::vector<double> rows, columns;
  };
  void update(double learning_rate) override;
  std::vector<Sums> gradient_sums() const;
  void add_over_ranks(std::vector<Sums>& sums) const;
  /// 1 / sqrt(r / mean(r)) and 1 / sqrt(c).
  struct Factors {
    std::vector<double> rows, columns;
  };
  /// Moves r and c.
  Factors factors_of(Whole& whole, const Sums& sums, double beta2) const;
  /// Moves v of the vectors, and adds up the squares of what will be the updates.
  void add_updates(const std::vector<Factors>& factors, double beta2, std::vector<Sums>& sums);
  /// u before it is clipped, of elements [begin, end) of a piece.
  template <typename T>
  static void normalised(const Whole& whole,
                         const Piece& piece,
                         const Factors& by,
                         const T* gradient,
                         int64_t begin,
                         int64_t end,
                         T* out);
  /// The same three on another device (adafactor_device.cpp): the sums of its pieces, added to
  /// `sums`; v of the vectors, and the squares of what will be the updates; u, [end - begin].
  void add_device_sums(std::vector<Sums>& sums) const;
  void add_device_updates(const std::vector<Factors>& factors,
                          double beta2,
                          std::vector<Sums>& sums);
  static at::Tensor device_normalised(const Whole& whole,
                                      const Piece& piece,
                                      const Factors& by,
                                      const at::Tensor& gradient,
                                      int64_t begin,
                                      int64_t end);
  /// u of such elements, averaged over the steps where there is a first moment.
  at::Tensor device_averaged(
      const Whole& whole, const Piece& piece, const at::Tensor& u, int64_t begin, int64_t end);
  /// Moves m of n elements of a piece, and makes u of it.
  template <typename T>
  void average(const Whole& whole, const Piece& piece, int64_t begin, int64_t n, T* u);
  double rate_of(const Whole& whole, const Sums& sums, double learning_rate) const;
};

}  // namespace praetor
