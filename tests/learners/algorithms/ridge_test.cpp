#include "learners/algorithms/ridge.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::vec;

namespace {

const double kNone = std::numeric_limits<double>::quiet_NaN();

/// 12 rows of 3 features, and labels of which every fourth is missing.
struct Rows {
  at::Tensor features = at::empty({12, 3}, at::kDouble);
  at::Tensor labels = at::empty({12}, at::kDouble);
  Rows() {
    for (int64_t i = 0; i < 12; ++i) {
      const auto x = static_cast<double>(i);
      for (int64_t j = 0; j < 3; ++j)
        features[i][j] = std::sin(3 * x + static_cast<double>(j * j) + 1);
      labels[i] = i % 4 == 2 ? kNone : std::cos(2 * x) + 0.5 * x;
    }
  }
  /// Sums of the rows that are held out, or of the others.
  RidgeSums sums(bool held, double share) const {
    const at::Tensor which = held_out_rows(12, share).eq(held).nonzero().view(-1);
    return ridge_sums(features.index_select(0, which), labels.index_select(0, which));
  }
};

/// The same minimum by Gauss and Jordan's elimination over plain loops.
std::vector<double> naive_ridge(const at::Tensor& features,
                                const at::Tensor& labels,
                                double alpha) {
  const auto size = static_cast<size_t>(features.size(1));
  std::vector<std::vector<double>> a(size, std::vector<double>(size + 1, 0.0));
  const auto h = [&](int64_t i, size_t j) {
    return features[i][static_cast<int64_t>(j)].item<double>();
  };
  for (int64_t i = 0; i < features.size(0); ++i) {
    const double y = labels[i].item<double>();
    if (std::isnan(y)) continue;
    for (size_t j = 0; j < size; ++j) {
      for (size_t k = 0; k < size; ++k) a[j][k] += h(i, j) * h(i, k);
      a[j][size] += y * h(i, j);
    }
  }
  for (size_t j = 0; j < size; ++j) a[j][j] += alpha;
  for (size_t j = 0; j < size; ++j) {
    const double pivot = a[j][j];
    for (double& x : a[j]) x /= pivot;
    for (size_t k = 0; k < size; ++k) {
      if (k == j) continue;
      const double factor = a[k][j];
      for (size_t m = 0; m <= size; ++m) a[k][m] -= factor * a[j][m];
    }
  }
  std::vector<double> out;
  for (const auto& row : a) out.push_back(row[size]);
  return out;
}

}  // namespace

TEST_CASE("two weights by hand", "[learners][cpu]") {
  // gram (2 1; 1 2), moment (4, 5); with alpha 1: (3 1; 1 3) w = (4, 5), w = (7, 11) / 8.
  const RidgeSums sums =
      ridge_sums(vec({1, 0, 0, 1, 1, 1, 9, 9}).view({4, 2}), vec({1, 2, 3, kNone}));
  CHECK(sums.count == 3);
  const at::Tensor w = ridge_weights(sums, 1);
  CHECK(at::allclose(w, vec({0.875, 1.375})));
  // Errors 0.125, 0.625, 0.75.
  CHECK(ridge_error(sums, w) == Approx((0.015625 + 0.390625 + 0.5625) / 3));
  // One feature: 1 / (1 + 4 + 9 + 2) of sum y h = 1 + 4 + 9.
  CHECK(ridge_weights(ridge_sums(vec({1, 2, 3}).view({3, 1}), vec({1, 2, 3})), 2).item<double>() ==
        Approx(14.0 / 16));
}

TEST_CASE("ridge weights are those of least squares on augmented rows", "[learners][cpu]") {
  // numpy.linalg.lstsq of the labelled rows above sqrt(alpha) times the identity.
  const Rows rows;
  const RidgeSums sums = ridge_sums(rows.features, rows.labels);
  CHECK(at::allclose(ridge_weights(sums, 0.5),
                     vec({2.856694478644566, -1.3260912707429837, 0.7135747348323981}),
                     1e-12));
  CHECK(at::allclose(ridge_weights(sums, 20),
                     vec({0.18501544656657806, -0.25156977356082333, 0.195228657945598}),
                     1e-12));
}

TEST_CASE("ridge weights are those of plain elimination, in float32 rows too", "[learners][cpu]") {
  at::manual_seed(7);
  const at::Tensor features = at::randn({40, 9}, at::kFloat);
  at::Tensor labels = at::randn({40}, at::kDouble);
  for (int64_t i = 0; i < 40; i += 3) labels[i] = kNone;
  for (const double alpha : {1e-3, 1.0, 50.0}) {
    const std::vector<double> wanted = naive_ridge(features, labels, alpha);
    CHECK(at::allclose(ridge_weights(ridge_sums(features, labels), alpha), vec(wanted), 1e-9));
  }
}

TEST_CASE("sums of parts are those of the whole", "[learners][cpu]") {
  const Rows rows;
  const RidgeSums whole = ridge_sums(rows.features, rows.labels);
  const RidgeSums parts = rows.sums(false, 0.25) + rows.sums(true, 0.25);
  CHECK(at::allclose(whole.gram, parts.gram));
  CHECK(at::allclose(whole.moment, parts.moment));
  CHECK(whole.squares == Approx(parts.squares));
  CHECK(whole.count == parts.count);
}

TEST_CASE("alpha is the one with which held-out rows are predicted best", "[learners][cpu]") {
  const Rows rows;
  const RidgeSums taught = rows.sums(false, 0.25), held = rows.sums(true, 0.25);
  // Rows 3, 7 and 11; their errors, from the program of the augmented rows.
  CHECK(held.count == 3);
  CHECK(ridge_error(held, ridge_weights(taught, 1)) == Approx(10.826458064880889));
  CHECK(ridge_error(held, ridge_weights(taught, 10)) == Approx(12.94585020056897));
  const RidgeFit fit = fit_ridge(taught, held, {10, 0.1, 1, 0.1});
  CHECK(fit.alpha == 0.1);
  CHECK(fit.held_out_error == Approx(8.361244492367575));
  CHECK(at::allclose(fit.weights, ridge_weights(taught + held, 0.1)));
  // A single one is taken as it is.
  CHECK(fit_ridge(taught + held, rows.sums(true, 0), {3}).alpha == 3);
}

TEST_CASE("held-out rows are spread evenly", "[learners][cpu]") {
  CHECK(held_out_rows(12, 0.25).nonzero().view(-1).equal(at::tensor({3, 7, 11}, at::kLong)));
  CHECK(held_out_rows(7, 0.5).sum().item<int64_t>() == 3);
  CHECK_FALSE(held_out_rows(5, 0).any().item<bool>());
}

TEST_CASE("ridge regression says what it lacks", "[learners][cpu]") {
  const RidgeSums none = ridge_sums(at::zeros({2, 2}, at::kDouble), vec({kNone, kNone}));
  const RidgeSums some = ridge_sums(vec({1, 2}).view({1, 2}), vec({1}));
  CHECK_THROWS_WITH(fit_ridge(none, none, {1}),
                    Catch::Equals("0 labels are too few: one at least is wanted"));
  CHECK_THROWS_WITH(fit_ridge(some, none, {1, 2}),
                    Catch::Equals("1 labels are too few: 0 of them are held out to choose alpha "
                                  "by, and 1 learnt from; both want one at least"));
  CHECK_THROWS_AS(fit_ridge(none, some, {1, 2}), DataError);
  CHECK(fit_ridge(some, none, {1}).weights.numel() == 2);
  CHECK_THROWS_AS(fit_ridge(some, some, {}), InvalidArgument);
  CHECK_THROWS_AS(ridge_weights(some, 0), InvalidArgument);
  const double infinite = std::numeric_limits<double>::infinity();
  CHECK_THROWS_AS(ridge_weights(ridge_sums(vec({1, infinite}).view({1, 2}), vec({1})), 1),
                  DataError);
  CHECK_THROWS_AS(ridge_sums(vec({1, 2}), vec({1, 2})), ShapeError);
  CHECK_THROWS_AS(some + ridge_sums(vec({1}).view({1, 1}), vec({1})), ShapeError);
}

}  // namespace praetor
