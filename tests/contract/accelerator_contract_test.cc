// What every architecture of the table promises on an accelerator, checked on its tiny config and
// the test accelerator: the CPU's answers, memory that comes back, and an error, not a crash, when
// memory runs out.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/cancellation.h"
#include "server/ess/ess_engine.h"
#include "server/models/architectures.h"
#include "server/models/model_loader.h"
#include "server/operators/sequence_operator.h"
#include "server/tokenization/tokenizer.h"
#include "tests/support/expect_ess.h"
#include "tests/support/random_tensors.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/test_accelerator/test_accelerator.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::FailAllocation;
using ess::testing::IsOk;
using ess::testing::kTestAccelerator;
using ess::testing::RandomTensors;
using ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

// Of the largest value that there is. The device's kernels get compact copies where the CPU's get
// views, and add in float32 in another order; 2e-6 was seen.
constexpr double kTolerance = 5e-6;

// The ESS of every operator that comes: with every measure that it has, or of the first mixer with
// those of a choice.
class EssSink final : public operators::OperatorSink {
 public:
  EssSink() = default;
  explicit EssSink(std::vector<Measure> measures) : measures_(std::move(measures)) {}

  bool Wants(int64_t mixer) const override { return !measures_ || mixer == 0; }

  absl::Status Accept(const operators::OperatorKey& key,
                      const operators::SequenceOperator& op) override {
    if (op.dense_maps() != nullptr) devices.insert(op.dense_maps()->device().str());
    const bool recurrent = op.state_size().kind == operators::StateSize::Kind::kConstant;
    const std::vector<Measure> measures =
        measures_.value_or(ess::testing::EveryMeasure(1e-3, 1e-2, recurrent));
    for (const EssOptions& options : {EssOptions{}, EssOptions{.horizon = 3}}) {
      auto ess =
          engine_.Compute(op, ess::testing::Range(op.head_count()),
                          ess::testing::Range(op.length()), measures, options, CancellationToken());
      if (!ess.ok()) return ess.status();
      for (size_t m = 0; m < measures.size(); ++m) {
        answers[fmt::format("mixer {} prompt {} from head {}: {}{}", key.mixer, key.prompt,
                            key.first_head, FormatMeasure(measures[m]),
                            options.horizon ? " with a horizon" : "")] = {
            .is_count = IsCount(measures[m]), .values = ess->values[m]};
      }
    }
    return absl::OkStatus();
  }

  struct Answer {
    bool is_count;
    std::vector<float> values;
  };
  std::map<std::string, Answer> answers;
  std::set<std::string> devices;  // Of the dense operators.

 private:
  static bool IsCount(const Measure& measure) {
    using Kind = Measure::Kind;
    return measure.kind == Kind::kTolerance || measure.kind == Kind::kRelative ||
           measure.kind == Kind::kHeadRelative || measure.kind == Kind::kCausal;
  }

  const std::optional<std::vector<Measure>> measures_;
  WorkerPool pool_{1};
  // The CPU takes the device's route.
  const EssEngine engine_{pool_, {.tensors_on_cpu = true}};
};

class AcceleratorContractTest : public ::testing::TestWithParam<Architecture> {
 protected:
  AcceleratorContractTest() {
    ess::testing::RegisterTestAccelerator();
    ess::testing::ResetTestAccelerator();
  }

  void SetUp() override {
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    folder_ = ess::testing::FreshFolder(::testing::TempDir(), "accelerator_contract_" + name);
    const nlohmann::json config = GetParam().tiny_config();
    std::ofstream(folder_ / "config.json") << config.dump();
    RandomTensors random(/*seed=*/11);
    ASSERT_THAT(GetParam().create(ConfigReader(config), random, "cpu"), IsOk());
    Store(random.taken(), "F32", at::kFloat);
    weights_ = random.taken();
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Writes the checkpoint.
  void Store(const std::map<std::string, at::Tensor>& weights, const std::string& dtype,
             at::ScalarType type) const {
    std::map<std::string, ess::testing::TensorToWrite> tensors;
    for (const auto& [name, weight] : weights) {
      const at::Tensor values = weight.to(type);
      tensors[name] = {
          .dtype = dtype,
          .shape = values.sizes().vec(),
          .bytes = {static_cast<const char*>(values.const_data_ptr()), values.nbytes()}};
    }
    ess::testing::WriteSafetensors(folder_ / "model.safetensors", tensors);
  }

  absl::StatusOr<LoadedModel> LoadOn(const std::string& device, bool as_stored = false) const {
    return LoadModelFolder(folder_, {.device = device, .as_stored = as_stored});
  }

  static int64_t live_bytes() { return ess::testing::TestAcceleratorState().live_bytes; }

  std::map<std::string, at::Tensor> weights_;
  std::filesystem::path folder_;
};

void ExpectSameAnswers(const EssSink& got, const EssSink& expected) {
  ASSERT_EQ(got.answers.size(), expected.answers.size());
  for (const auto& [what, answer] : expected.answers) {
    SCOPED_TRACE(what);
    ASSERT_TRUE(got.answers.contains(what));
    if (answer.is_count) {
      EXPECT_EQ(got.answers.at(what).values, answer.values);
    } else {
      const double largest = *std::max_element(answer.values.begin(), answer.values.end());
      EXPECT_THAT(got.answers.at(what).values,
                  Pointwise(FloatNear(static_cast<float>(kTolerance * largest)), answer.values));
    }
  }
}

TEST_P(AcceleratorContractTest, AnswersAreThoseOfTheCpu) {
  const std::vector<std::vector<int64_t>> prompts = {{3, 1, 4, 1, 5, 9, 2}, {6}, {5, 3, 5}};
  const auto on_cpu = LoadOn("cpu");
  const auto on_device = LoadOn(kTestAccelerator);
  ASSERT_THAT(on_cpu, IsOk());
  ASSERT_THAT(on_device, IsOk());
  EssSink expected, got;
  std::vector<at::Tensor> expected_logits, logits;
  ASSERT_THAT(on_cpu->model->Forward(prompts, expected, CancellationToken(), &expected_logits),
              IsOk());
  ASSERT_THAT(on_device->model->Forward(prompts, got, CancellationToken(), &logits), IsOk());

  EXPECT_EQ(on_device->model->description().device, kTestAccelerator);
  EXPECT_EQ(got.devices, expected.devices.empty() ? std::set<std::string>()
                                                  : std::set<std::string>({kTestAccelerator}));
  ExpectSameAnswers(got, expected);
  for (size_t p = 0; p < prompts.size(); ++p) {
    const double largest = expected_logits[p].abs().max().item<double>();
    EXPECT_TRUE(at::allclose(logits[p], expected_logits[p], /*rtol=*/0, kTolerance * largest));
  }
}

TEST_P(AcceleratorContractTest, GaussianPromptsAreThoseOfTheCpu) {
  const GaussianPrompts prompts{.count = 2, .length = 6, .seed = 1};
  const auto on_cpu = LoadOn("cpu");
  const auto on_device = LoadOn(kTestAccelerator);
  ASSERT_THAT(on_cpu, IsOk());
  ASSERT_THAT(on_device, IsOk());
  EssSink expected, got;
  ASSERT_THAT(on_cpu->model->ForwardGaussian(prompts, expected, CancellationToken(), nullptr),
              IsOk());
  ASSERT_THAT(on_device->model->ForwardGaussian(prompts, got, CancellationToken(), nullptr),
              IsOk());

  ExpectSameAnswers(got, expected);
}

TEST_P(AcceleratorContractTest, WeightsAsStoredGiveTheCpusLogitsUpToTheirPrecision) {
  Store(weights_, "BF16", at::kBFloat16);
  const std::vector<std::vector<int64_t>> prompts = {{3, 1, 4, 1, 5, 9, 2}};
  const auto on_cpu = LoadOn("cpu", /*as_stored=*/true);
  const auto on_device = LoadOn(kTestAccelerator, /*as_stored=*/true);
  ASSERT_THAT(on_cpu, IsOk());
  ASSERT_THAT(on_device, IsOk());
  EssSink expected, got;
  std::vector<at::Tensor> expected_logits, logits;
  ASSERT_THAT(on_cpu->model->Forward(prompts, expected, CancellationToken(), &expected_logits),
              IsOk());
  ASSERT_THAT(on_device->model->Forward(prompts, got, CancellationToken(), &logits), IsOk());

  EXPECT_EQ(got.answers.size(), expected.answers.size());
  const double largest = expected_logits[0].abs().max().item<double>();
  EXPECT_LT((logits[0] - expected_logits[0]).abs().max().item<double>(), 0.1 * largest);
}

TEST_P(AcceleratorContractTest, WeightsLieOnTheDeviceAndComeBack) {
  const int64_t before = live_bytes();
  for (const bool drawn : {false, true}) {
    auto model = LoadModelFolder(folder_, {.device = kTestAccelerator});
    if (drawn) {
      model = LoadModelFolder(folder_, {.device = kTestAccelerator, .random_init_seed = 5});
    }
    ASSERT_THAT(model, IsOk());
    const int64_t loaded = live_bytes();
    EssSink sink;
    ASSERT_THAT(model->model->Forward(std::vector<std::vector<int64_t>>{{3, 1, 4}}, sink,
                                      CancellationToken(), nullptr),
                IsOk());

    EXPECT_GE(loaded - before, model->model->description().weight_bytes);
    EXPECT_EQ(live_bytes(), loaded);

    *model = LoadedModel();
    EXPECT_EQ(live_bytes(), before);
  }
}

// Runs out of memory at the first allocation of `work`, at the second, ..., until it succeeds.
// Returns at how many.
int64_t ExpectRecovery(const std::function<absl::Status()>& work) {
  const int64_t before = ess::testing::TestAcceleratorState().live_bytes;
  for (int64_t n = 1;; ++n) {
    FailAllocation(n);
    const absl::Status status = work();
    EXPECT_EQ(ess::testing::TestAcceleratorState().live_bytes, before) << "allocation " << n;
    if (ess::testing::TestAcceleratorState().allocations_to_failure > 0) {
      FailAllocation(0);
      EXPECT_THAT(status, IsOk());
      return n - 1;
    }
    EXPECT_THAT(status, StatusIs(StatusCode::kResourceExhausted,
                                 AllOf(HasSubstr("Tried to allocate"), HasSubstr("are free"))))
        << "allocation " << n;
    if (::testing::Test::HasFailure()) return n;
  }
}

class AcceleratorMemoryTest : public AcceleratorContractTest {};

TEST_P(AcceleratorMemoryTest, APassThatRunsOutAtAnyAllocationLeavesTheModelAsItWas) {
  const std::vector<std::vector<int64_t>> prompts = {{3, 1, 4}};
  const auto loaded = LoadOn(kTestAccelerator);
  ASSERT_THAT(loaded, IsOk());
  const std::vector<Measure> measures = {{.kind = Measure::Kind::kTolerance, .value = 1e-3},
                                         {.kind = Measure::Kind::kFrobeniusNorm}};
  EssSink before(measures), after(measures);
  ASSERT_THAT(loaded->model->Forward(prompts, before, CancellationToken(), nullptr), IsOk());

  const int64_t failures = ExpectRecovery([&] {
    EssSink sink(measures);
    return loaded->model->Forward(prompts, sink, CancellationToken(), nullptr);
  });

  EXPECT_GT(failures, 10);
  ASSERT_THAT(loaded->model->Forward(prompts, after, CancellationToken(), nullptr), IsOk());
  ASSERT_EQ(after.answers.size(), before.answers.size());
  for (const auto& [what, answer] : before.answers) {
    EXPECT_EQ(after.answers.at(what).values, answer.values) << what;
  }
}

TEST_P(AcceleratorMemoryTest, ALoadThatRunsOutAtAnyAllocationKeepsNothing) {
  const int64_t failures = ExpectRecovery([this] { return LoadOn(kTestAccelerator).status(); });

  EXPECT_GT(failures, 10);
}

TEST_P(AcceleratorMemoryTest, AModelLargerThanTheDeviceIsRefused) {
  ess::testing::TestAcceleratorState().byte_budget = 2000;

  EXPECT_THAT(LoadOn(kTestAccelerator),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("of 2000 bytes")));
  EXPECT_EQ(live_bytes(), 0);
}

std::vector<Architecture> OneOfEachKind() {
  std::vector<Architecture> chosen;
  for (const char* const type : {"llama", "mamba", "gated_deltanet", "mixtral"}) {
    chosen.push_back(*FindArchitecture(type));
  }
  return chosen;
}

INSTANTIATE_TEST_SUITE_P(Architectures, AcceleratorMemoryTest, ::testing::ValuesIn(OneOfEachKind()),
                         [](const auto& info) { return info.param.model_type; });

INSTANTIATE_TEST_SUITE_P(Architectures, AcceleratorContractTest,
                         ::testing::ValuesIn(Architectures().begin(), Architectures().end()),
                         [](const auto& info) { return info.param.model_type; });

}  // namespace
}  // namespace ess::models
