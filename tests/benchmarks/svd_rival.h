// The published method: a singular value decomposition at every position, by LibTorch (MKL). Also
// the truth that all other answers are compared with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/base/worker_pool.h"

namespace ess::benchmarks {

// `count` evenly spaced positions of 1 .. L-1, or all of them when there are no more.
std::vector<int64_t> EvenPositions(int64_t length, int64_t count);

// SVDs of one operator at some positions, repeated as often as Run is called.
class SvdRival {
 public:
  // `matrix` is T, row-major [length, length], and outlives it. Singular values are known at the
  // first and last few positions as well, which are not timed.
  SvdRival(std::span<const double> matrix, int64_t length, std::vector<int64_t> timed_positions);

  // One SVD at each timed position; the threads share them out.
  void Run(WorkerPool& pool);

  // What all positions would take on the threads of the pool: the mean of the timed ones, the
  // fastest run of each, times L - 1.
  double Seconds() const;
  bool extrapolated() const { return timed_count_ < length_ - 1; }

  int64_t length() const { return length_; }
  // The timed positions, then the others.
  const std::vector<int64_t>& positions() const { return positions_; }
  // [position][singular value], aligned with positions(); after the first Run.
  const std::vector<std::vector<double>>& sigma() const { return sigma_; }

 private:
  const std::span<const double> matrix_;
  const int64_t length_;
  const int64_t timed_count_;
  std::vector<int64_t> positions_;
  std::vector<std::vector<double>> sigma_;
  std::vector<double> seconds_;  // [timed_count_]
  int threads_ = 1;
};

// How many answers of an engine differ from what the SVD says; a singular value within rounding of
// the tolerance, max(1e-9, 1e-16 (sigma_1 / tau)^2) relative, excuses either count.
//
// `counts` is [L], aligned with positions 0 .. L-1.
int64_t WrongCounts(const SvdRival& svd, std::span<const float> counts, double tau);
// The same, of counts above `fraction` times the largest singular value of each position.
int64_t WrongFractions(const SvdRival& svd, std::span<const float> counts, double fraction);
// The largest relative error of entropies [L].
double LargestEntropyError(const SvdRival& svd, std::span<const float> entropies);

}  // namespace ess::benchmarks
