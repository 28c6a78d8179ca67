#include "server/pipeline/operators_pipeline.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "server/operators/dense_operator.h"
#include "server/operators/operator_classes.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Joins the groups as a client does.
class Joined : public OperatorsReceiver {
 public:
  absl::Status OnBegin(const operators::StateSize& size) override {
    ++begun;
    state_size = size;
    return absl::OkStatus();
  }
  absl::Status OnEss(int64_t first, const OperatorEss& ess) override {
    ++groups;
    EXPECT_EQ(begun, 1);
    firsts.push_back(first);
    values.resize(ess.values.size());
    for (size_t m = 0; m < ess.values.size(); ++m) {
      values[m].insert(values[m].end(), ess.values[m].begin(), ess.values[m].end());
    }
    return fails ? absl::CancelledError("left") : absl::OkStatus();
  }
  absl::Status OnSummary(const LayerRecord& summary) override {
    record = summary;
    return absl::OkStatus();
  }

  bool fails = false;
  int begun = 0;
  int groups = 0;
  std::vector<int64_t> firsts;
  operators::StateSize state_size;
  std::vector<std::vector<float>> values;
  LayerRecord record;
};

class OperatorsPipelineTest : public ::testing::Test {
 protected:
  absl::Status Run(const std::string& class_name,
                   const std::vector<std::pair<std::string, at::Tensor>>& arguments,
                   bool read_before = false) {
    job.class_name = class_name;
    job.read_before = read_before;
    job.arguments.clear();
    std::vector<at::Tensor> tensors;
    for (const auto& [name, tensor] : arguments) {
      job.arguments.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
      tensors.push_back(tensor.contiguous());
    }
    const auto shape = operators::CheckDeclaration(class_name, job.arguments, read_before);
    EXPECT_THAT(shape, IsOk());
    job.shape = *shape;
    if (job.positions.empty()) {
      for (int64_t i = 0; i < job.shape.length; ++i) job.positions.push_back(i);
    }
    if (job.measures.empty()) job.measures = {{.kind = Measure::Kind::kTolerance, .value = 1e-3}};
    joined = {};
    joined.fails = fails;
    return ProfileOperators(job, tensors, engine, cancellation, joined, stages);
  }

  // ESS of one dense matrix at the job's positions.
  std::vector<float> Direct(const at::Tensor& matrix, size_t measure) {
    const operators::DenseOperator op(matrix.unsqueeze(0), operators::StateSize::Growing());
    const auto ess = engine.Compute(op, std::vector<int64_t>{0}, job.positions, job.measures,
                                    job.options, cancellation);
    EXPECT_THAT(ess, IsOk());
    return ess->values[measure];
  }

  at::Tensor Random(at::IntArrayRef shape) {
    return at::randn(shape, generator, at::TensorOptions(at::kDouble));
  }

  at::Generator generator = at::detail::createCPUGenerator(7);
  OperatorsJob job;
  WorkerPool pool{2};
  EssEngine engine{pool};
  CancellationToken cancellation;
  StageTimes stages;
  bool fails = false;
  Joined joined;
};

TEST_F(OperatorsPipelineTest, AnswersEachOperatorOfTheBatchInOrder) {
  const at::Tensor maps = Random({2, 3, 12, 12}).tril();

  ASSERT_THAT(Run("DenseOperator", {{"T", maps}}), IsOk());

  EXPECT_THAT(job.shape.batch_shape, ElementsAre(2, 3));
  ASSERT_THAT(joined.values[0], SizeIs(6 * 12));
  for (int64_t h = 0; h < 6; ++h) {
    const std::vector<float> expected = Direct(maps.view({6, 12, 12})[h], 0);
    const auto begin = joined.values[0].begin() + h * 12;
    EXPECT_EQ(std::vector<float>(begin, begin + 12), expected) << h;
  }
  EXPECT_THAT(joined.record.noise_floors, SizeIs(6));
  EXPECT_GT(joined.record.noise_floors[5], 0);
  EXPECT_EQ(joined.state_size, operators::StateSize::Growing());
}

TEST_F(OperatorsPipelineTest, BroadcastsLeadingDimensions) {
  // Leading dimensions [2, 1], [3] and none: every operator of [2, 3] is formed by hand.
  const at::Tensor a = at::sigmoid(Random({2, 1, 10, 4}));
  const at::Tensor b = Random({3, 10, 4});
  const at::Tensor c = Random({10, 4});

  ASSERT_THAT(Run("DiagonalRecurrence", {{"a", a}, {"b", b}, {"c", c}}), IsOk());

  EXPECT_THAT(job.shape.batch_shape, ElementsAre(2, 3));
  for (int64_t h = 0; h < 6; ++h) {
    at::Tensor matrix = at::zeros({10, 10}, at::kDouble);
    for (int64_t j = 0; j < 10; ++j) {
      at::Tensor state = b[h % 3][j].clone();
      for (int64_t i = j; i < 10; ++i) {
        if (i > j) state *= a[h / 3][0][i];
        matrix[i][j] = (c[i] * state).sum();
      }
    }
    const auto begin = joined.values[0].begin() + h * 10;
    EXPECT_EQ(std::vector<float>(begin, begin + 10), Direct(matrix, 0)) << h;
  }
  EXPECT_EQ(joined.state_size, operators::StateSize::Constant(4));
}

TEST_F(OperatorsPipelineTest, CutsALargeBatchIntoGroups) {
  // 4 KiB of values an operator: groups of 64. Each passes on a multiple of the input before.
  const at::Tensor scales = Random({150});
  const at::Tensor band = at::zeros({150, 1024, 2}, at::kDouble);
  band.select(2, 1) += scales.unsqueeze(1);
  job.measures = {{.kind = Measure::Kind::kFrobeniusNorm}};

  ASSERT_THAT(Run("BandedOperator", {{"band", band}}), IsOk());

  EXPECT_THAT(joined.firsts, ElementsAre(0, 64, 128));
  ASSERT_THAT(joined.values[0], SizeIs(150 * 1024));
  for (const int64_t head : {0, 63, 64, 149}) {
    const float expected = std::abs(scales[head].item<float>());
    EXPECT_FLOAT_EQ(joined.values[0][head * 1024 + 500], expected);
  }
}

TEST_F(OperatorsPipelineTest, ReducesOverTheBatchOrThePositions) {
  const at::Tensor maps = Random({5, 9, 9}).tril();
  job.measures = {{.kind = Measure::Kind::kTolerance, .value = 0.5},
                  {.kind = Measure::Kind::kSingularValues, .count = 2}};
  ASSERT_THAT(Run("DenseOperator", {{"T", maps}}), IsOk());
  const std::vector<std::vector<float>> full = joined.values;

  job.reduction = Reduction::kHeads;
  ASSERT_THAT(Run("DenseOperator", {{"T", maps}}), IsOk());
  EXPECT_EQ(joined.groups, 1);
  for (size_t m = 0; m < 2; ++m) {
    const size_t width = 9 * (m + 1);
    ASSERT_THAT(joined.values[m], SizeIs(width));
    for (size_t x = 0; x < width; ++x) {
      double sum = 0;
      for (size_t h = 0; h < 5; ++h) sum += full[m][h * width + x];
      EXPECT_NEAR(joined.values[m][x], sum / 5, 1e-6);
    }
  }

  job.reduction = Reduction::kPositions;
  ASSERT_THAT(Run("DenseOperator", {{"T", maps}}), IsOk());
  EXPECT_THAT(joined.values[0], SizeIs(5));
  EXPECT_THAT(joined.values[1], SizeIs(10));
  EXPECT_THAT(joined.record.noise_floors, SizeIs(5));
}

TEST_F(OperatorsPipelineTest, NamesArgumentAndIndexOfAValueThatCannotBe) {
  at::Tensor maps = Random({2, 3, 4, 4}).tril();
  maps[1][2][3][0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(Run("DenseOperator", {{"T", maps}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("DenseOperator.T is nan"), HasSubstr("[1, 2, 3, 0]"))));
  EXPECT_EQ(joined.begun, 0);
}

TEST_F(OperatorsPipelineTest, SaysWhichOperatorsProductsOverflow) {
  // Gates of 1e200: T[3, 0] holds a product of three.
  at::Tensor a = at::full({2, 5, 1}, 0.5, at::kDouble);
  a[1].fill_(1e200);
  const at::Tensor ones = at::ones({5, 2}, at::kDouble);

  EXPECT_THAT(
      Run("DiagonalRecurrence", {{"a", a}, {"b", ones}, {"c", ones}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("data: T["), HasSubstr("of operator 1 of the batch is inf"))));
}

TEST_F(OperatorsPipelineTest, StopsWhenTheReceiverFails) {
  job.measures = {{.kind = Measure::Kind::kFrobeniusNorm}};
  fails = true;

  EXPECT_THAT(Run("Convolution", {{"h", Random({3000, 4})}}),
              StatusIs(absl::StatusCode::kCancelled, "left"));
  EXPECT_EQ(joined.groups, 1);
}

TEST_F(OperatorsPipelineTest, StopsWhenCancelled) {
  cancellation.Cancel();

  EXPECT_THAT(Run("DenseOperator", {{"T", at::eye(4, at::kDouble)}}),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  EXPECT_EQ(joined.begun, 0);
}

}  // namespace
}  // namespace ess
