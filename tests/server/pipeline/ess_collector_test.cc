#include "server/pipeline/ess_collector.h"

#include <ATen/ATen.h>

#include <cmath>

#include "gmock/gmock.h"
#include "server/operators/dense_operator.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::testing::ElementsAre;

// Keeps a copy of each piece.
struct Received {
  int64_t layer, prompt, first_head, head_count;
  std::vector<std::vector<float>> values;
};

class Recorder : public ProfileReceiver {
 public:
  absl::Status OnPlan(const ProfilePlan&, const residency::ModelStatus&,
                      const std::vector<std::vector<std::string>>&) override {
    return absl::OkStatus();
  }
  absl::Status OnEss(const EssPiece& piece) override {
    pieces.push_back(
        {piece.layer, piece.prompt, piece.first_head, piece.head_count, piece.ess.values});
    return absl::OkStatus();
  }
  bool Wants(int64_t layer) const override { return layer != unwanted; }
  absl::Status OnLayer(int64_t layer, const LayerRecord& record) override {
    layers.emplace_back(layer, pieces.size());
    EXPECT_EQ(record.noise_floors.size(), 6u);
    EXPECT_GT(record.noise_floors.front(), 0);
    return absl::OkStatus();
  }
  absl::Status OnSummary(const ProfileSummary&) override { return absl::OkStatus(); }

  int64_t unwanted = -1;
  std::vector<Received> pieces;
  std::vector<std::pair<int64_t, size_t>> layers;  // With the pieces that had come.
};

// Two layers of 4 heads with channels 1, 2, 3, 4, of which head 2 is not selected; prompts of 5 and
// 1 tokens; heads come in groups of 2.
class EssCollectorTest : public ::testing::Test {
 protected:
  EssCollectorTest() {
    for (int64_t layer = 0; layer < 2; ++layer) {
      model.mixers.push_back({.name = std::to_string(layer),
                              .layer_index = layer,
                              .head_count = 4,
                              .channels = {1, 2, 3, 4}});
      plan.layers.push_back({.mixer = layer, .heads = {0, 1, 3}});
    }
    plan.lengths = {5, 1};
    plan.positions = {{0, 1, 2, 3, 4}, {0}};
    plan.all_positions = plan.positions[0];
    job.measures = {{.kind = Measure::Kind::kTolerance, .value = 0.1},
                    {.kind = Measure::Kind::kSingularValues, .count = 2}};
  }

  std::vector<Received> Collect(Reduction reduction) {
    Recorder recorder;
    return Collect(reduction, recorder);
  }

  std::vector<Received> Collect(Reduction reduction, Recorder& recorder) {
    job.reduction = reduction;
    StageTimes stages;
    Utilization utilization(job, plan, model, job.measures[0]);
    const CancellationToken cancellation;
    EssCollector collector(job, plan, model, engine, cancellation, recorder, stages, utilization);
    at::manual_seed(1);
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (int64_t prompt = 0; prompt < 2; ++prompt) {
        const int64_t length = prompt == 0 ? 5 : 1;
        for (int64_t first_head = 0; first_head < 4; first_head += 2) {
          const operators::DenseOperator op(at::rand({2, length, length}).tril(),
                                            operators::StateSize::Growing());
          EXPECT_THAT(collector.Accept({layer, prompt, first_head}, op), IsOk());
        }
      }
    }
    return recorder.pieces;
  }

  models::ModelDescription model;
  ProfilePlan plan;
  ProfileJob job;
  WorkerPool pool{2};
  EssEngine engine{pool};
};

// values[head][position * K], from the pieces of one layer, prompt and measure.
std::vector<std::vector<double>> Heads(const std::vector<Received>& pieces, int64_t layer,
                                       int64_t prompt, size_t measure) {
  std::vector<std::vector<double>> heads;
  for (const Received& piece : pieces) {
    if (piece.layer != layer || piece.prompt != prompt) continue;
    const auto& values = piece.values[measure];
    const size_t width = values.size() / piece.head_count;
    for (int64_t h = 0; h < piece.head_count; ++h) {
      heads.emplace_back(values.begin() + h * width, values.begin() + (h + 1) * width);
    }
  }
  return heads;
}

TEST_F(EssCollectorTest, SendsTheSelectedHeadsOfEachGroup) {
  const std::vector<Received> pieces = Collect(Reduction::kNone);

  ASSERT_EQ(pieces.size(), 8u);
  EXPECT_EQ(pieces[0].first_head, 0);
  EXPECT_EQ(pieces[0].head_count, 2);
  EXPECT_EQ(pieces[1].first_head, 2);
  EXPECT_EQ(pieces[1].head_count, 1);
}

TEST_F(EssCollectorTest, MeansOverHeadsGatherAllGroupsOfAnOperator) {
  const std::vector<Received> full = Collect(Reduction::kNone);
  const std::vector<Received> means = Collect(Reduction::kHeads);

  ASSERT_EQ(means.size(), 4u);
  for (const Received& mean : means) {
    EXPECT_EQ(mean.first_head, 0);
    for (size_t m = 0; m < 2; ++m) {
      const auto heads = Heads(full, mean.layer, mean.prompt, m);
      ASSERT_EQ(heads.size(), 3u);
      ASSERT_EQ(mean.values[m].size(), heads[0].size());
      for (size_t x = 0; x < heads[0].size(); ++x) {
        const double expected = (1 * heads[0][x] + 2 * heads[1][x] + 4 * heads[2][x]) / 7;
        EXPECT_NEAR(mean.values[m][x], expected, 1e-6);
      }
    }
  }
}

TEST_F(EssCollectorTest, MeansOverPositionsAreOfEachHead) {
  const std::vector<Received> full = Collect(Reduction::kNone);
  const std::vector<Received> means = Collect(Reduction::kPositions);

  for (int64_t layer = 0; layer < 2; ++layer) {
    for (size_t m = 0; m < 2; ++m) {
      const size_t width = m + 1;
      const auto heads = Heads(full, layer, 0, m);
      const auto found = Heads(means, layer, 0, m);
      ASSERT_EQ(found.size(), 3u);
      for (size_t h = 0; h < 3; ++h) {
        ASSERT_EQ(found[h].size(), width);
        for (size_t k = 0; k < width; ++k) {
          double sum = 0;
          for (size_t p = 1; p < 5; ++p) sum += heads[h][p * width + k];
          EXPECT_NEAR(found[h][k], sum / 4, 1e-6);
        }
      }
      for (const auto& head : Heads(means, layer, 1, m)) {
        for (const double value : head) EXPECT_TRUE(std::isnan(value));
      }
    }
  }
}

TEST_F(EssCollectorTest, ALayerEndsAfterItsLastPieceHoweverItIsReduced) {
  for (const Reduction reduction : {Reduction::kNone, Reduction::kHeads, Reduction::kPositions}) {
    Recorder recorder;
    Collect(reduction, recorder);

    const size_t half = recorder.pieces.size() / 2;
    EXPECT_THAT(recorder.layers,
                ElementsAre(std::pair<int64_t, size_t>(0, half), std::pair(1, 2 * half)));
  }
}

TEST_F(EssCollectorTest, ALayerThatIsNotWantedIsNotComputed) {
  Recorder recorder;
  recorder.unwanted = 0;
  Collect(Reduction::kNone, recorder);

  ASSERT_EQ(recorder.layers.size(), 1u);
  EXPECT_EQ(recorder.layers[0].first, 1);
  for (const Received& piece : recorder.pieces) EXPECT_EQ(piece.layer, 1);
}

}  // namespace
}  // namespace ess
