// The tensor ESS of an answer: what the engine hands over piece by piece, in one padded block.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "server/pipeline/profile_job.h"

namespace ess::inference {

// The selected heads of all layers of a plan, ascending: the axis that the layers share.
std::vector<int64_t> HeadAxis(const ProfilePlan& plan);

// Not thread-safe.
class EssTensor {
 public:
  // [prompts, measures, layers, heads, positions]
  using Shape = std::array<int64_t, 5>;

  // Of `layer_count` layers of the plan.
  static Shape ShapeOf(const ProfilePlan& plan, int64_t measure_count, int64_t layer_count,
                       int64_t head_count);

  // Of its elements. The largest int64 when there is no such number.
  static int64_t ElementCount(const Shape& shape);

  // Layers [first_layer, first_layer + layer_count) of `plan`, which outlives this. `heads`:
  // HeadAxis(plan). NaN everywhere, and not certain.
  EssTensor(const ProfilePlan& plan, std::vector<int64_t> heads, int64_t measure_count,
            int64_t first_layer, int64_t layer_count, bool certify);

  const Shape& shape() const { return shape_; }
  int64_t first_layer() const { return first_layer_; }

  // REQUIRES: of one of the layers, not reduced, one value for each position.
  void Add(const EssPiece& piece);

  // Whether all heads of all prompts of the layer have come.
  bool HasAll(int64_t layer) const;

  // The elements as they are sent: float32, little-endian; and one byte each, empty without
  // `certify`.
  std::string TakeValues() { return std::move(values_); }
  std::string TakeCertain() { return std::move(certain_); }

 private:
  const ProfilePlan& plan_;
  const std::vector<int64_t> heads_;
  const int64_t first_layer_;
  const Shape shape_;
  std::string values_;
  std::string certain_;
  std::vector<int64_t> heads_missing_;  // By layer, of all prompts together.
};

}  // namespace ess::inference
