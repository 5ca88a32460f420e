#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/base/exp_nonpositive.h"
#include "core/base/philox.h"
#include "core/cuda/block.h"

/// Drawing tokens from rows of logits where they lie: tempered, cut by top-k, top-p and min-p, with
/// the random number that the CPU's sampler would use (rollout/sampler.h, rollout/draw.h).
///
/// The weights w_v = exp((z_v - max z)) have the bits of the CPU's. They are summed as integers, in
/// units of 2^-44: sums do not depend on an order, so a token does not depend on the number of
/// threads either. The CPU sums in float64, so the two draw another token only when the random
/// number lies within about 1e-11 of the border of two, and cut elsewhere only when a share is
/// met as closely; what is less likely than 2^-45 of the most likely is never drawn.
namespace praetor::cuda {

/// How one token is drawn.
struct SampleSpec {
  int32_t row;          ///< of the logits
  float temperature;    ///< 0: the largest logit, of equal ones the lowest id
  double top_p, min_p;  ///< as in rollout/draw.h; 1 and 0: off
  int32_t top_k;        ///< 0: off
  PhiloxWords counter;  ///< position, sample index, prompt ordinal, its high part with purpose and
                        ///< stage (core/base/random.cpp)
  uint32_t key[2];      ///< job seed, low and high
};

struct SampleResult {
  int32_t token;           ///< -1: the logits are not finite
  float model_logprob;     ///< nats, untempered
  float behavior_logprob;  ///< tempered, before truncation; untempered where the temperature is 0
  float sampled_logprob;   ///< in the distribution drawn from; 0 where the temperature is 0
  float kept_mass;         ///< share that truncation kept
};

/// An order of all floats but NaN as that of integers.
PRAETOR_HD constexpr uint32_t ordered(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x + 0.0F);  // -0 is 0
  return bits & 0x80000000U ? ~bits : bits | 0x80000000U;
}

struct SampleKernel {
  static constexpr int kThreads = 512;
  static constexpr int kBins = 256;
  static constexpr int64_t kMostIds = int64_t{1} << 19;  ///< sums stay below 2^63
  static constexpr double kOne = 0x1p44;                 ///< weight 1

  const float* logits;  ///< [*, vocabulary]
  const SampleSpec* specs;
  SampleResult* results;
  int64_t count, vocabulary;  ///< vocabulary <= kMostIds

  Grid grid() const { return {count, 1, 1}; }
  int64_t memory() const { return kBins * 8; }

  template <typename Block>
  PRAETOR_HD void operator()(Block& block, Grid at) const {
    const SampleSpec spec = specs[at.x];
    const Row row{logits + spec.row * vocabulary, spec.temperature, vocabulary};
    auto* bins = reinterpret_cast<uint64_t*>(block.memory());
    SampleResult out{-1, 0, 0, 0, 1};

    float best = -INFINITY, plain_best = -INFINITY;
    bool bad = false;
    for (int64_t i = block.thread(); i < vocabulary; i += block.threads()) {
      best = larger(best, row.z(i));
      plain_best = larger(plain_best, row.logits[i]);
      bad = bad || row.logits[i] != row.logits[i];
    }
    best = block.max(best);
    plain_best = block.max(plain_best);
    bad = block.max(bad ? 1.0F : 0.0F) > 0;
    if (bad || !(best > -INFINITY && best < INFINITY)) {
      if (block.thread() == 0) results[at.x] = out;
      return;
    }
    const uint64_t plain_mass = block.sum(mass_of_row(block, row.logits, plain_best));
    const bool greedy = spec.temperature == 0.0F, tempered = !greedy && spec.temperature != 1.0F;
    const uint64_t total = tempered ? block.sum(mass_of_row(block, row, best)) : plain_mass;

    Cut cut{0, 0};
    uint64_t kept = total;
    if (!greedy) {
      if (spec.top_k > 0 && spec.top_k < vocabulary)
        cut = select(block, bins, row, best, cut, spec.top_k, [](float) { return uint64_t{1}; });
      if (spec.top_p < 1.0) {
        const uint64_t share = kept_mass(block, row, best, cut, 0.0);
        const uint64_t need = larger<uint64_t>(
            1, static_cast<uint64_t>(ceil(spec.top_p * static_cast<double>(share))));
        cut = select(
            block, bins, row, best, cut, need, [best](float z) { return mass(weight(z, best)); });
      }
      if (cut.place != 0 || cut.z != 0 || spec.min_p > 0)
        kept = kept_mass(block, row, best, cut, spec.min_p);
    }
    out.token = greedy ? first_of(block, row, best) : draw(block, bins, row, best, cut, kept, spec);
    const float chosen = row.z(out.token);
    out.model_logprob = logprob(row.logits[out.token], plain_best, plain_mass);
    out.behavior_logprob = tempered ? logprob(chosen, best, total) : out.model_logprob;
    if (!greedy) {
      out.sampled_logprob = logprob(chosen, best, kept);
      out.kept_mass = static_cast<float>(static_cast<double>(kept) / static_cast<double>(total));
    }
    if (block.thread() == 0) results[at.x] = out;
  }

 private:
  /// Tempered logits of one row.
  struct Row {
    const float* logits;
    float temperature;
    int64_t vocabulary;
    PRAETOR_HD float z(int64_t i) const {
      return temperature == 0.0F || temperature == 1.0F ? logits[i] : logits[i] / temperature;
    }
  };

  /// What is kept: ids whose logit is above z, or equal and their id's place at least `place`
  /// (places descend as ids ascend, so that lower ids come first). Zeros keep all.
  struct Cut {
    uint32_t z;      ///< as `ordered`
    uint32_t place;  ///< kMostIds - id
  };
  PRAETOR_HD static bool keeps(const Cut& cut, uint32_t z, int64_t id) {
    return z > cut.z || (z == cut.z && kMostIds - id >= cut.place);
  }

  PRAETOR_HD static float weight(float z, float best) { return exp_nonpositive(z - best); }
  PRAETOR_HD static uint64_t mass(float weight) {
    return static_cast<uint64_t>(llrint(static_cast<double>(weight) * kOne));
  }
  PRAETOR_HD static float logprob(float z, float best, uint64_t total) {
    return static_cast<float>(static_cast<double>(z) - best -
                              ::log(static_cast<double>(total) / kOne));
  }

  /// This thread's part of the sum.
  template <typename Block>
  PRAETOR_HD uint64_t mass_of_row(Block& block, const Row& row, float best) const {
    uint64_t sum = 0;
    for (int64_t i = block.thread(); i < vocabulary; i += block.threads())
      sum += mass(weight(row.z(i), best));
    return sum;
  }
  template <typename Block>
  PRAETOR_HD uint64_t mass_of_row(Block& block, const float* from, float best) const {
    return mass_of_row(block, Row{from, 1.0F, vocabulary}, best);
  }

  PRAETOR_HD static uint64_t kept_mass_of(
      const Row& row, int64_t id, float best, const Cut& cut, double min_p) {
    const float z = row.z(id);
    if (!keeps(cut, ordered(z), id)) return 0;
    const float w = weight(z, best);
    return static_cast<double>(w) < min_p ? 0 : mass(w);
  }
  template <typename Block>
  PRAETOR_HD uint64_t
  kept_mass(Block& block, const Row& row, float best, const Cut& cut, double min_p) const {
    uint64_t sum = 0;
    for (int64_t i = block.thread(); i < vocabulary; i += block.threads())
      sum += kept_mass_of(row, i, best, cut, min_p);
    return block.sum(sum);
  }

  /// The lowest id with logit `best`.
  template <typename Block>
  PRAETOR_HD int32_t first_of(Block& block, const Row& row, float best) const {
    float place = 0;  // ids are below 2^24, which floats count exactly
    for (int64_t i = block.thread(); i < vocabulary; i += block.threads()) {
      if (row.z(i) == best) place = larger(place, static_cast<float>(kMostIds - i));
    }
    return static_cast<int32_t>(kMostIds - static_cast<int64_t>(block.max(place)));
  }

  /// Adds the bins from the highest down until `need` is met: the bin where it is, and `need` less
  /// what lies above. -1 when all bins together do not meet it.
  PRAETOR_HD static int descend(const uint64_t* bins, uint64_t& need) {
    int chosen = -1;
    uint64_t above = 0;
    for (int bin = kBins - 1; bin >= 0; --bin) {
      const uint64_t here = bins[bin];
      if (chosen < 0 && above + here >= need)
        chosen = bin;
      else if (chosen < 0)
        above += here;
    }
    if (chosen >= 0) need -= above;
    return chosen;
  }

  /// The cut behind the first ids, by falling logit and rising id, whose measures add up to `need`,
  /// among those that `before` keeps. By digits, the highest first: the distance to `best` in
  /// eighths, then the logit's bits, then the id's.
  template <typename Block, typename Measure>
  PRAETOR_HD Cut select(Block& block,
                        uint64_t* bins,
                        const Row& row,
                        float best,
                        const Cut& before,
                        uint64_t need,
                        Measure measure) const {
    constexpr int kDigits = 8;  // one of the distance, four of the logit, three of the id
    int distance = 0;
    Cut cut{0, 0};
    for (int digit = 0; digit < kDigits; ++digit) {
      for (int bin = block.thread(); bin < kBins; bin += block.threads()) bins[bin] = 0;
      block.sync();
      const int z_shift = 32 - 8 * digit, place_shift = 8 * (kDigits - 1 - digit);
      for (int64_t base = 0; base < vocabulary; base += block.threads()) {
        const int64_t id = base + block.thread();
        int bin = 0;
        uint64_t value = 0;
        if (id < vocabulary) {
          const float z = row.z(id);
          const uint32_t key = ordered(z);
          const auto place = static_cast<uint32_t>(kMostIds - id);
          bool candidate = keeps(before, key, id);
          if (digit == 0) {
            bin = bin_of(z, best);
          } else if (digit <= 4) {
            candidate = candidate && bin_of(z, best) == distance &&
                        (digit == 1 || key >> (z_shift + 8) == cut.z >> (z_shift + 8));
            bin = static_cast<int>(key >> z_shift & 255U);
          } else {
            candidate = candidate && key == cut.z &&
                        place >> (place_shift + 8) == cut.place >> (place_shift + 8);
            bin = static_cast<int>(place >> place_shift & 255U);
          }
          if (candidate) value = measure(z);
        }
        block.add(bins, bin, value);
      }
      block.sync();
      const int chosen = descend(bins, need);
      block.sync();
      if (chosen < 0) return before;  // all of them together do not reach the need
      if (digit == 0)
        distance = chosen;
      else if (digit <= 4)
        cut.z |= static_cast<uint32_t>(chosen) << z_shift;
      else
        cut.place |= static_cast<uint32_t>(chosen) << place_shift;
    }
    return cut;
  }
  PRAETOR_HD static int bin_of(float z, float best) {
    const float eighths = (best - z) * 8.0F;
    return eighths < 255.0F ? 255 - static_cast<int>(eighths) : 0;
  }

  /// The first kept id whose running sum exceeds the random number's share of `kept`: the ids'
  /// range is cut into 256 parts again and again.
  template <typename Block>
  PRAETOR_HD int32_t draw(Block& block,
                          uint64_t* bins,
                          const Row& row,
                          float best,
                          const Cut& cut,
                          uint64_t kept,
                          const SampleSpec& spec) const {
    const double u = unit_interval(philox_words(spec.counter, spec.key[0], spec.key[1]));
    const auto target = static_cast<uint64_t>(u * static_cast<double>(kept));
    uint64_t need = smaller(target + 1, kept);
    int64_t begin = 0, end = vocabulary;
    while (end - begin > 1) {
      const int64_t part = blocks_of(end - begin, kBins);
      for (int bin = block.thread(); bin < kBins; bin += block.threads()) bins[bin] = 0;
      block.sync();
      for (int64_t base = begin; base < end; base += block.threads()) {
        const int64_t id = base + block.thread();
        const bool inside = id < end;
        const auto offset = static_cast<uint32_t>(inside ? id - begin : 0);
        // The first ids are in the highest bin.
        block.add(bins,
                  kBins - 1 - static_cast<int>(offset / static_cast<uint32_t>(part)),
                  inside ? kept_mass_of(row, id, best, cut, spec.min_p) : 0);
      }
      block.sync();
      const int chosen = descend(bins, need);
      block.sync();
      begin += (kBins - 1 - chosen) * part;
      end = smaller(end, begin + part);
    }
    return static_cast<int32_t>(begin);
  }
};

}  // namespace praetor::cuda
