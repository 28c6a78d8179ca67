// What is kept of a layer once its values are sent: routes and noise floors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/ess/ess_engine.h"
#include "server/ess/measure.h"

namespace ess {

struct LayerRecord {
  std::vector<std::string> routes;         // Per measure; several joined by '+'.
  std::vector<int64_t> below_noise_floor;  // Per measure: (prompt, head) pairs.
  std::vector<double> noise_floors;        // Row-major [prompts, selected heads].

  static LayerRecord Empty(size_t measures, size_t floors);

  // Adds a group of heads, whose noise floors begin at `first_floor`.
  void Add(std::span<const Measure> measures, const OperatorEss& ess, size_t first_floor);
};

}  // namespace ess
