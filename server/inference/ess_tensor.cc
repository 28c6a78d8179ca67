#include "server/inference/ess_tensor.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <limits>
#include <set>
#include <utility>

#include "server/base/log.h"

static_assert(std::endian::native == std::endian::little,
              "elements are sent as they lie in memory");

namespace ess::inference {

std::vector<int64_t> HeadAxis(const ProfilePlan& plan) {
  std::set<int64_t> heads;
  for (const PlannedLayer& layer : plan.layers)
    heads.insert(layer.heads.begin(), layer.heads.end());
  return {heads.begin(), heads.end()};
}

EssTensor::Shape EssTensor::ShapeOf(const ProfilePlan& plan, int64_t measure_count,
                                    int64_t layer_count, int64_t head_count) {
  return {std::ssize(plan.lengths), measure_count, layer_count, head_count,
          std::ssize(plan.all_positions)};
}

int64_t EssTensor::ElementCount(const Shape& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(count, size, &count)) return std::numeric_limits<int64_t>::max();
  }
  return count;
}

EssTensor::EssTensor(const ProfilePlan& plan, std::vector<int64_t> heads, int64_t measure_count,
                     int64_t first_layer, int64_t layer_count, bool certify)
    : plan_(plan),
      heads_(std::move(heads)),
      first_layer_(first_layer),
      shape_(ShapeOf(plan, measure_count, layer_count, std::ssize(heads_))) {
  const auto count = static_cast<size_t>(ElementCount(shape_));
  values_.resize(count * sizeof(float));
  const float absent = std::numeric_limits<float>::quiet_NaN();
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(&values_[i * sizeof(float)], &absent, sizeof(float));
  }
  if (certify) certain_.resize(count);
  for (int64_t l = first_layer; l < first_layer + layer_count; ++l) {
    heads_missing_.push_back(std::ssize(plan.layers[l].heads) * std::ssize(plan.lengths));
  }
}

void EssTensor::Add(const EssPiece& piece) {
  const int64_t layer = piece.layer - first_layer_;
  const std::vector<int64_t>& layer_heads = plan_.layers[piece.layer].heads;
  // Those that a prompt has are the first of the axis: selections ascend.
  const int64_t positions = std::ssize(plan_.positions[piece.prompt]);
  for (int64_t m = 0; m < shape_[1]; ++m) {
    const std::vector<float>& values = piece.ess.values[m];
    ESS_CHECK(std::ssize(values) == piece.head_count * positions);
    for (int64_t h = 0; h < piece.head_count; ++h) {
      const int64_t head = layer_heads[piece.first_head + h];
      const int64_t row = std::lower_bound(heads_.begin(), heads_.end(), head) - heads_.begin();
      const int64_t first =
          (((piece.prompt * shape_[1] + m) * shape_[2] + layer) * shape_[3] + row) * shape_[4];
      if (positions == 0) continue;
      std::memcpy(&values_[first * sizeof(float)], &values[h * positions],
                  positions * sizeof(float));
      if (!certain_.empty()) {
        std::memcpy(&certain_[first], &piece.ess.certain[m][h * positions], positions);
      }
    }
  }
  heads_missing_[layer] -= piece.head_count;
}

bool EssTensor::HasAll(int64_t layer) const { return heads_missing_[layer - first_layer_] == 0; }

}  // namespace ess::inference
