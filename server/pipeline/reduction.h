// Means over heads or positions, made before the answer leaves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "server/ess/ess_engine.h"
#include "server/ess/measure.h"

namespace ess {

enum class Reduction {
  kNone,
  kHeads,      // One value per position: the mean over heads, weighted by their channels.
  kPositions,  // One value per head: the mean over the selected positions except position 0.
};

// Shape of one measure's values of `heads` heads at `positions` positions: [heads, positions]
// without the axis that the reduction takes away, and with a last axis K for kSingularValues.
std::vector<int64_t> ValueShape(Reduction reduction, int64_t heads, int64_t positions,
                                const Measure& measure);

// Elements of a tensor of that shape.
int64_t ValueCount(Reduction reduction, int64_t heads, int64_t positions, const Measure& measure);

// Bytes of one value in an answer: a float, and with certify whether it is certain.
inline int64_t ValueBytes(const EssOptions& options) {
  return static_cast<int64_t>(sizeof(float)) + (options.certify ? 1 : 0);
}

// Values that one head adds to the shape above; 0 for kHeads, where heads add none.
int64_t ValuesPerHead(Reduction reduction, int64_t positions, const Measure& measure);

// The mean over the positions of each head; NaN where no position but 0 is selected. A mean is
// certain when all of its values are. The answer has values and certain only.
// REQUIRES: `ess` is of `measures` at `positions`.
OperatorEss MeanOverPositions(const OperatorEss& ess, std::span<const Measure> measures,
                              std::span<const int64_t> positions);

// The mean over the heads of one operator, which come in groups. Not thread-safe.
class MeanOverHeads {
 public:
  // Adds heads; `weights` has one number above 0 for each. All groups are of the same measures and
  // positions.
  void Add(const OperatorEss& group, std::span<const double> weights);

  // The mean of what was added, as MeanOverPositions; then begins anew.
  // REQUIRES: at least one head was added.
  OperatorEss Take();

 private:
  double weight_ = 0;
  std::vector<std::vector<double>> sums_;      // [measures][positions * K]
  std::vector<std::vector<uint8_t>> certain_;  // The same, or empty.
};

}  // namespace ess
