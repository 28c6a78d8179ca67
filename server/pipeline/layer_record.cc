#include "server/pipeline/layer_record.h"

#include <algorithm>

namespace ess {
namespace {

// "inertia_tree" + "reference_svd" -> "inertia_tree+reference_svd"; a route already there stays.
void JoinRoute(const std::string& route, std::string& routes) {
  if (routes.empty()) {
    routes = route;
  } else if (("+" + routes + "+").find("+" + route + "+") == std::string::npos) {
    routes += "+" + route;
  }
}

}  // namespace

LayerRecord LayerRecord::Empty(size_t measures, size_t floors) {
  return {.routes = std::vector<std::string>(measures),
          .below_noise_floor = std::vector<int64_t>(measures),
          .noise_floors = std::vector<double>(floors)};
}

void LayerRecord::Add(std::span<const Measure> measures, const OperatorEss& ess,
                      size_t first_floor) {
  std::copy(ess.noise_floors.begin(), ess.noise_floors.end(), noise_floors.begin() + first_floor);
  for (size_t m = 0; m < measures.size(); ++m) {
    JoinRoute(ess.routes[m], routes[m]);
    if (measures[m].kind != Measure::Kind::kTolerance) continue;
    below_noise_floor[m] += std::count_if(ess.noise_floors.begin(), ess.noise_floors.end(),
                                          [&](double floor) { return measures[m].value < floor; });
  }
}

}  // namespace ess
