#include "tests/benchmarks/svd_rival.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "server/base/serial_torch.h"
#include "server/ess/reference_ess.h"
#include "server/linalg/reference_linalg.h"
#include "tests/benchmarks/timing.h"

namespace ess::benchmarks {
namespace {

bool IsWrong(const std::vector<double>& sigma, float count, double tau, double largest) {
  const double guard = std::max(1e-9, 1e-16 * (largest / tau) * (largest / tau));
  const int64_t least = CountAbove(sigma, tau * (1 + guard));
  const int64_t most = CountAbove(sigma, tau * (1 - guard));
  return count < static_cast<float>(least) || count > static_cast<float>(most);
}

}  // namespace

std::vector<int64_t> EvenPositions(int64_t length, int64_t count) {
  count = std::min(count, length - 1);
  std::vector<int64_t> positions;
  for (int64_t k = 0; k < count; ++k) {
    positions.push_back(1 + (2 * k + 1) * (length - 1) / (2 * count));
  }
  return positions;
}

SvdRival::SvdRival(std::span<const double> matrix, int64_t length,
                   std::vector<int64_t> timed_positions)
    : matrix_(matrix),
      length_(length),
      timed_count_(static_cast<int64_t>(timed_positions.size())),
      positions_(std::move(timed_positions)),
      seconds_(timed_count_, kNotYet) {
  for (const int64_t border : {1, 2, 3, 8}) {
    for (const int64_t position : {border, length - border}) {
      const auto end = positions_.begin() + timed_count_;
      if (std::find(positions_.begin(), end, position) == end) positions_.push_back(position);
    }
  }
  sigma_.resize(positions_.size());
}

void SvdRival::Run(WorkerPool& pool) {
  threads_ = pool.threads();
  const bool first = sigma_.front().empty();
  const auto run = [&](int64_t k, int) {
    const SerialTorch serial;
    const double start = Now();
    sigma_[k] = ValueOrExit(linalg::BlockSingularValues(matrix_, length_, positions_[k]));
    if (k < timed_count_) seconds_[k] = std::min(seconds_[k], Now() - start);
  };
  ExitUnlessOk(
      pool.ParallelFor(first ? positions_.size() : timed_count_, run, CancellationToken()));
}

double SvdRival::Seconds() const {
  const double sum = std::accumulate(seconds_.begin(), seconds_.end(), 0.0);
  return sum * static_cast<double>(length_ - 1) / static_cast<double>(timed_count_ * threads_);
}

int64_t WrongCounts(const SvdRival& svd, std::span<const float> counts, double tau) {
  double largest = 0;
  for (const std::vector<double>& sigma : svd.sigma()) largest = std::max(largest, sigma.front());
  int64_t wrong = 0;
  for (size_t k = 0; k < svd.positions().size(); ++k) {
    wrong += IsWrong(svd.sigma()[k], counts[svd.positions()[k]], tau, largest);
  }
  return wrong;
}

int64_t WrongFractions(const SvdRival& svd, std::span<const float> counts, double fraction) {
  int64_t wrong = 0;
  for (size_t k = 0; k < svd.positions().size(); ++k) {
    const std::vector<double>& sigma = svd.sigma()[k];
    wrong += IsWrong(sigma, counts[svd.positions()[k]], fraction * sigma.front(), sigma.front());
  }
  return wrong;
}

double LargestEntropyError(const SvdRival& svd, std::span<const float> entropies) {
  double largest = 0;
  for (size_t k = 0; k < svd.positions().size(); ++k) {
    const double truth = EntropyEss(svd.sigma()[k]);
    const double error = std::abs(entropies[svd.positions()[k]] - truth);
    largest = std::max(largest, truth > 0 ? error / truth : error);
  }
  return largest;
}

}  // namespace ess::benchmarks
