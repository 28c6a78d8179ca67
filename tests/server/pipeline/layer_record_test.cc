#include "server/pipeline/layer_record.h"

#include "gmock/gmock.h"

namespace ess {
namespace {

using ::testing::ElementsAre;

TEST(LayerRecordTest, JoinsGroupsOfHeads) {
  const std::vector<Measure> measures = {{.kind = Measure::Kind::kTolerance, .value = 0.5},
                                         {.kind = Measure::Kind::kEntropy}};
  LayerRecord record = LayerRecord::Empty(2, 5);

  record.Add(measures, {.noise_floors = {0.1, 0.6}, .routes = {"inertia_tree", "bands"}}, 0);
  record.Add(measures, {.noise_floors = {0.7, 0.5}, .routes = {"reference_svd", "bands"}}, 3);

  EXPECT_THAT(record.routes, ElementsAre("inertia_tree+reference_svd", "bands"));
  EXPECT_THAT(record.below_noise_floor, ElementsAre(2, 0));
  EXPECT_THAT(record.noise_floors, ElementsAre(0.1, 0.6, 0, 0.7, 0.5));
}

TEST(LayerRecordTest, NamesARouteOnceAndNotWithinAnother) {
  const std::vector<Measure> measures = {{.kind = Measure::Kind::kEntropy}};
  LayerRecord record = LayerRecord::Empty(1, 1);
  for (const char* route : {"tree", "tree", "inertia_tree", "tree", "svd"}) {
    record.Add(measures, {.noise_floors = {0}, .routes = {route}}, 0);
  }
  EXPECT_THAT(record.routes, ElementsAre("tree+inertia_tree+svd"));
}

}  // namespace
}  // namespace ess
