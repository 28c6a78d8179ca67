// What every architecture of the table promises, checked on its tiny config: it takes exactly the
// tensors of its checkpoint, its operators are causal and mix what the model mixes, and a pass
// stops when it is told to.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/cancellation.h"
#include "server/models/architectures.h"
#include "server/models/model_loader.h"
#include "server/operators/sequence_operator.h"
#include "server/tokenization/tokenizer.h"
#include "tests/support/random_tensors.h"
#include "tests/support/recording_sink.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::IsOk;
using ess::testing::RandomTensors;
using ess::testing::RecordingSink;
using ess::testing::StatusIs;
using ess::testing::TensorToWrite;
using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

const std::vector<std::vector<int64_t>> kPrompts = {{3, 1, 4, 1, 5, 9, 2}, {6}, {5, 3, 5}};

class ArchitectureContractTest : public ::testing::TestWithParam<Architecture> {
 protected:
  void SetUp() override {
    config_ = GetParam().tiny_config();
    RandomTensors random(/*seed=*/11);
    auto model = GetParam().create(ConfigReader(config_), random, "cpu");
    ASSERT_THAT(model, IsOk());
    model_ = *std::move(model);
    weights_ = random.taken();
    for (const auto& [name, tensor] : weights_) {
      const float* const data = tensor.const_data_ptr<float>();
      tensors_[name] =
          ess::testing::Float32Tensor(tensor.sizes().vec(), {data, data + tensor.numel()});
    }
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    folder_ = ess::testing::FreshFolder(::testing::TempDir(), "architecture_contract_" + name);
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<LoadedModel> Load(const LoadOptions& options = {}) const {
    std::ofstream(folder_ / "config.json") << config_.dump();
    ess::testing::WriteSafetensors(folder_ / "model.safetensors", tensors_);
    return LoadModelFolder(folder_, options);
  }

  int64_t mixer_count() const { return static_cast<int64_t>(model_->description().mixers.size()); }

  nlohmann::json config_;
  std::unique_ptr<SequenceModel> model_;          // With the random weights.
  std::map<std::string, at::Tensor> weights_;     // These.
  std::map<std::string, TensorToWrite> tensors_;  // The same, to write.
  std::filesystem::path folder_;
};

TEST_P(ArchitectureContractTest, ACheckpointGivesTheModelOfItsTensors) {
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  RecordingSink expected, got;
  std::vector<at::Tensor> expected_logits, got_logits;
  ASSERT_THAT(model_->Forward(kPrompts, expected, CancellationToken(), &expected_logits), IsOk());
  ASSERT_THAT(loaded->model->Forward(kPrompts, got, CancellationToken(), &got_logits), IsOk());

  EXPECT_EQ(got.heads, expected.heads);
  for (size_t p = 0; p < kPrompts.size(); ++p) {
    EXPECT_TRUE(at::equal(got_logits[p], expected_logits[p]));
  }
}

// The same weights, rounded to 16 bits: resident as they are stored, or widened to float32.
TEST_P(ArchitectureContractTest, WeightsAsStoredGiveNearlyTheSameOperators) {
  struct StoredType {
    at::ScalarType type;
    const char* safetensors_name;
    const char* name;
    double tolerance;  // A few dozen roundings of entries up to 1.
  };
  for (const StoredType& stored : {StoredType{at::kBFloat16, "BF16", "bfloat16", 0.1},
                                   StoredType{at::kHalf, "F16", "float16", 0.0125}}) {
    for (auto& [name, tensor] : tensors_) {
      const at::Tensor rounded = weights_.at(name).to(stored.type);
      tensor = {stored.safetensors_name,
                rounded.sizes().vec(),
                {static_cast<const char*>(rounded.const_data_ptr()), rounded.nbytes()}};
    }
    const auto widened = Load();
    ASSERT_THAT(widened, IsOk());
    const auto as_stored = Load({.as_stored = true});
    ASSERT_THAT(as_stored, IsOk());
    EXPECT_EQ(as_stored->model->description().dtype, stored.name);
    RecordingSink expected, got;
    std::vector<at::Tensor> expected_logits, got_logits;
    ASSERT_THAT(widened->model->Forward(kPrompts, expected, CancellationToken(), &expected_logits),
                IsOk());
    ASSERT_THAT(as_stored->model->Forward(kPrompts, got, CancellationToken(), &got_logits), IsOk());

    ASSERT_EQ(got.heads.size(), expected.heads.size());
    for (const auto& [key, dense] : expected.heads) {
      EXPECT_THAT(got.heads.at(key), Pointwise(DoubleNear(stored.tolerance), dense));
    }
    for (size_t p = 0; p < kPrompts.size(); ++p) {
      EXPECT_EQ(got_logits[p].scalar_type(), at::kFloat);
      EXPECT_TRUE(at::isfinite(got_logits[p]).all().item<bool>());
    }
  }
}

TEST_P(ArchitectureContractTest, TheBasePrefixOfTensorNamesMayBeThere) {
  std::map<std::string, TensorToWrite> prefixed;
  for (const auto& [name, tensor] : tensors_) {
    prefixed[GetParam().base_prefixes.front() + name] = tensor;
  }
  tensors_ = prefixed;

  EXPECT_THAT(Load(), IsOk());
}

TEST_P(ArchitectureContractTest, UnusedBuffersOfOldCheckpointsAreIgnored) {
  for (const std::string& suffix : GetParam().ignored_suffixes) {
    tensors_["anything" + suffix] = ess::testing::Float32Tensor({2}, {1, 2});
  }

  EXPECT_THAT(Load(), IsOk());
}

TEST_P(ArchitectureContractTest, EveryMissingTensorIsNamed) {
  const auto all = tensors_;
  for (const auto& [name, tensor] : all) {
    tensors_ = all;
    tensors_.erase(name);

    EXPECT_THAT(Load(), StatusIs(StatusCode::kDataLoss, HasSubstr(name)));
  }
}

TEST_P(ArchitectureContractTest, EveryTensorOfAnotherShapeIsNamed) {
  const auto all = tensors_;
  for (const auto& [name, tensor] : all) {
    tensors_ = all;
    tensors_[name].shape.push_back(1);

    EXPECT_THAT(Load(), StatusIs(StatusCode::kDataLoss, HasSubstr(name)));
  }
}

TEST_P(ArchitectureContractTest, AnUnexpectedTensorIsNamed) {
  tensors_["layers.0.surprise.weight"] = ess::testing::Float32Tensor({1}, {1});

  EXPECT_THAT(Load(), StatusIs(StatusCode::kDataLoss, HasSubstr("surprise")));
}

TEST_P(ArchitectureContractTest, SizesThatWouldOverflowAreRefusedBeforeTheyAreAllocated) {
  for (const auto& [key, value] : config_.items()) {
    if (!value.is_number_integer()) continue;
    for (const int64_t bad : {int64_t{0}, int64_t{-1}, int64_t{1} << 40}) {
      nlohmann::json config = config_;
      config[key] = bad;
      RandomTensors random(/*seed=*/11);

      EXPECT_THAT(GetParam().create(ConfigReader(config), random, "cpu"),
                  StatusIs(StatusCode::kFailedPrecondition,
                           AllOf(HasSubstr(key), HasSubstr(std::to_string(bad)))));
      EXPECT_TRUE(random.taken().empty());
    }
  }
}

TEST_P(ArchitectureContractTest, ADescriptionMatchesTheWeights) {
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  const ModelDescription& description = loaded->model->description();
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors_) bytes += static_cast<int64_t>(tensor.bytes.size());

  EXPECT_EQ(description.architecture, GetParam().model_type);
  EXPECT_EQ(description.device, "cpu");
  EXPECT_EQ(description.dtype, "float32");
  EXPECT_EQ(description.weight_bytes, bytes);
  EXPECT_EQ(description.parameters, bytes / 4);
  EXPECT_EQ(description.vocabulary_size, config_["vocab_size"].get<int64_t>());
  EXPECT_EQ(description.mixers.front().name, "000");
}

TEST_P(ArchitectureContractTest, OperatorsOfEveryMixerPromptAndHeadArriveInOrder) {
  RecordingSink sink;
  ASSERT_THAT(model_->Forward(kPrompts, sink, CancellationToken(), /*logits=*/nullptr), IsOk());

  size_t expected_heads = 0;
  for (const Mixer& mixer : model_->description().mixers) {
    expected_heads += kPrompts.size() * static_cast<size_t>(mixer.head_count);
  }
  EXPECT_EQ(sink.heads.size(), expected_heads);
  EXPECT_TRUE(std::is_sorted(sink.calls.begin(), sink.calls.end(), [](auto& a, auto& b) {
    return std::tie(a.mixer, a.prompt, a.first_head) < std::tie(b.mixer, b.prompt, b.first_head);
  }));
}

TEST_P(ArchitectureContractTest, OperatorsAreCausalAndFinite) {
  RecordingSink sink;
  ASSERT_THAT(model_->Forward(kPrompts, sink, CancellationToken(), /*logits=*/nullptr), IsOk());

  for (const auto& [key, dense] : sink.heads) {
    const size_t length = kPrompts[static_cast<size_t>(key.prompt)].size();
    for (size_t i = 0; i < length; ++i) {
      for (size_t j = 0; j < length; ++j) EXPECT_TRUE(std::isfinite(dense[i * length + j]));
      for (size_t j = i + 1; j < length; ++j) EXPECT_EQ(dense[i * length + j], 0);
    }
  }
}

TEST_P(ArchitectureContractTest, ALaterTokenChangesNothingBefore) {
  const std::vector<std::vector<int64_t>> changed = {{3, 1, 4, 1, 5, 8, 2}};
  RecordingSink before, after;
  std::vector<at::Tensor> logits_before, logits_after;
  ASSERT_THAT(
      model_->Forward(std::span(kPrompts).first(1), before, CancellationToken(), &logits_before),
      IsOk());
  ASSERT_THAT(model_->Forward(changed, after, CancellationToken(), &logits_after), IsOk());

  EXPECT_TRUE(
      at::allclose(logits_before[0].narrow(0, 0, 5), logits_after[0].narrow(0, 0, 5), 1e-5, 1e-6));
  EXPECT_FALSE(at::allclose(logits_before[0][5], logits_after[0][5], 1e-3, 1e-3));
  for (const auto& [key, dense] : before.heads) {
    const std::vector<double>& other = after.heads.at(key);
    for (size_t entry = 0; entry < 5 * 7; ++entry) {  // The first five rows of seven.
      EXPECT_NEAR(dense[entry], other[entry], 1e-6);
    }
  }
}

TEST_P(ArchitectureContractTest, APassStopsAtTheSinksError) {
  RecordingSink sink;
  sink.on_accept = [](const operators::OperatorKey& key) {
    return key.mixer == 1 && key.prompt == 1 ? absl::ResourceExhaustedError("full")
                                             : absl::OkStatus();
  };
  std::vector<at::Tensor> logits;

  EXPECT_THAT(model_->Forward(kPrompts, sink, CancellationToken(), &logits),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("full")));
  EXPECT_EQ(sink.calls.back().mixer, 1);
  EXPECT_EQ(sink.calls.back().prompt, 1);
}

TEST_P(ArchitectureContractTest, ACancelledPassStopsBetweenTwoSteps) {
  CancellationToken cancellation;
  RecordingSink sink;
  sink.on_accept = [&](const operators::OperatorKey&) {
    cancellation.Cancel();
    return absl::OkStatus();
  };

  EXPECT_THAT(model_->Forward(kPrompts, sink, cancellation, /*logits=*/nullptr),
              StatusIs(StatusCode::kCancelled, ::testing::_));
  EXPECT_EQ(sink.calls.size(), 1u);
}

TEST_P(ArchitectureContractTest, APassAfterItsDeadlineComputesNothing) {
  const CancellationToken cancellation(absl::Now() - absl::Seconds(1));
  RecordingSink sink;

  EXPECT_THAT(model_->Forward(kPrompts, sink, cancellation, /*logits=*/nullptr),
              StatusIs(StatusCode::kDeadlineExceeded, ::testing::_));
  EXPECT_TRUE(sink.calls.empty());
}

TEST_P(ArchitectureContractTest, OnlyWantedMixersAreCaptured) {
  RecordingSink none, first;
  none.wants = [](int64_t) { return false; };
  first.wants = [](int64_t mixer) { return mixer == 0; };
  std::vector<at::Tensor> logits;
  ASSERT_THAT(model_->Forward(kPrompts, none, CancellationToken(), &logits), IsOk());
  ASSERT_THAT(model_->Forward(kPrompts, first, CancellationToken(), /*logits=*/nullptr), IsOk());

  EXPECT_TRUE(none.calls.empty());
  EXPECT_EQ(logits.size(), kPrompts.size());
  EXPECT_TRUE(std::all_of(first.calls.begin(), first.calls.end(),
                          [](const auto& key) { return key.mixer == 0; }));
  EXPECT_FALSE(first.calls.empty());
}

INSTANTIATE_TEST_SUITE_P(Architectures, ArchitectureContractTest,
                         ::testing::ValuesIn(Architectures().begin(), Architectures().end()),
                         [](const auto& info) { return info.param.model_type; });

}  // namespace
}  // namespace ess::models
