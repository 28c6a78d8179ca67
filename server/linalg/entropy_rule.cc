#include "server/linalg/entropy_rule.h"

#include <algorithm>
#include <cmath>

namespace ess::linalg {
namespace {

double EntropyBy(EntropyWeights EntropyNode::*weights,
                 const std::array<double, kEntropyShifts>& log_dets, double square) {
  double sum = (kEntropyRule[kEntropyShifts].*weights).sum * square;
  double product = (kEntropyRule[kEntropyShifts].*weights).product * square;
  for (int j = 0; j < kEntropyShifts; ++j) {
    sum += (kEntropyRule[j].*weights).sum * log_dets[j];
    product += (kEntropyRule[j].*weights).product * log_dets[j];
  }
  return sum * std::exp(-product / sum);
}

}  // namespace

EntropyEstimate EstimateEntropy(const std::array<double, kEntropyShifts>& log_dets, double square,
                                double rank_bound) {
  const double entropy = EntropyBy(&EntropyNode::all, log_dets, square);
  const double change =
      std::max(std::abs(EntropyBy(&EntropyNode::without_first, log_dets, square) - entropy),
               std::abs(EntropyBy(&EntropyNode::without_last, log_dets, square) - entropy));
  return {.entropy = std::clamp(entropy, 1.0, std::max(rank_bound, 1.0)),
          .error = change / entropy};
}

std::vector<double> SpreadErrors(std::span<const double> errors) {
  constexpr int64_t kReach = 4;
  const int64_t count = static_cast<int64_t>(errors.size());
  std::vector<double> spread(count, 0.0);
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = errors.begin() + std::max(i - kReach, int64_t{0});
    const auto end = errors.begin() + std::min(i + kReach + 1, count);
    if (errors[i] > 0) spread[i] = *std::max_element(begin, end);
  }
  return spread;
}

}  // namespace ess::linalg
