#include "server/pipeline/reduction.h"

#include <limits>
#include <utility>

#include "server/base/log.h"

namespace ess {

std::vector<int64_t> ValueShape(Reduction reduction, int64_t heads, int64_t positions,
                                const Measure& measure) {
  std::vector<int64_t> shape;
  if (reduction != Reduction::kHeads) shape.push_back(heads);
  if (reduction != Reduction::kPositions) shape.push_back(positions);
  if (measure.kind == Measure::Kind::kSingularValues) shape.push_back(measure.count);
  return shape;
}

int64_t ValueCount(Reduction reduction, int64_t heads, int64_t positions, const Measure& measure) {
  return (reduction == Reduction::kHeads ? 1 : heads) *
         (reduction == Reduction::kPositions ? 1 : positions) * measure.ValuesPerPosition();
}

int64_t ValuesPerHead(Reduction reduction, int64_t positions, const Measure& measure) {
  switch (reduction) {
    case Reduction::kNone:
      return positions * measure.ValuesPerPosition();
    case Reduction::kHeads:
      return 0;
    case Reduction::kPositions:
      return measure.ValuesPerPosition();
  }
  return 0;
}

OperatorEss MeanOverPositions(const OperatorEss& ess, std::span<const Measure> measures,
                              std::span<const int64_t> positions) {
  OperatorEss means;
  const size_t heads = ess.noise_floors.size();
  // `positions` ascends: only the first can be 0.
  const size_t skipped = !positions.empty() && positions.front() == 0 ? 1 : 0;
  const size_t counted = positions.size() - skipped;
  for (size_t m = 0; m < measures.size(); ++m) {
    const size_t width = measures[m].ValuesPerPosition();
    const bool certify = !ess.certain.empty();
    std::vector<float> values(heads * width, std::numeric_limits<float>::quiet_NaN());
    std::vector<uint8_t> certain(certify ? heads * width : 0, 1);
    for (size_t x = 0; x < values.size() && counted > 0; ++x) {
      const size_t begin = (x / width * positions.size() + skipped) * width + x % width;
      double sum = 0;
      for (size_t p = 0; p < counted; ++p) {
        sum += ess.values[m][begin + p * width];
        if (certify) certain[x] &= ess.certain[m][begin + p * width];
      }
      values[x] = static_cast<float>(sum / static_cast<double>(counted));
    }
    means.values.push_back(std::move(values));
    if (certify) means.certain.push_back(std::move(certain));
  }
  return means;
}

void MeanOverHeads::Add(const OperatorEss& group, std::span<const double> weights) {
  if (sums_.empty()) {
    for (const std::vector<float>& values : group.values) {
      sums_.emplace_back(values.size() / weights.size());
    }
    for (const std::vector<uint8_t>& certain : group.certain) {
      certain_.emplace_back(certain.size() / weights.size(), 1);
    }
  }
  for (size_t h = 0; h < weights.size(); ++h) {
    weight_ += weights[h];
    for (size_t m = 0; m < sums_.size(); ++m) {
      const size_t size = sums_[m].size();
      ESS_CHECK(group.values[m].size() == size * weights.size());
      for (size_t x = 0; x < size; ++x) {
        sums_[m][x] += weights[h] * group.values[m][h * size + x];
        if (!certain_.empty()) certain_[m][x] &= group.certain[m][h * size + x];
      }
    }
  }
}

OperatorEss MeanOverHeads::Take() {
  ESS_CHECK(weight_ > 0);
  OperatorEss mean{.values = {}, .certain = std::exchange(certain_, {})};
  for (const std::vector<double>& sums : sums_) {
    std::vector<float>& values = mean.values.emplace_back();
    for (const double sum : sums) values.push_back(static_cast<float>(sum / weight_));
  }
  sums_.clear();
  weight_ = 0;
  return mean;
}

}  // namespace ess
