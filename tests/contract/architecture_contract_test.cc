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

#include "gtest/gtest.h"
#include "server/base/cancellation.h"
#include "server/models/architectures.h"
#include "server/models/model_loader.h"
#include "server/operators/sequence_operator.h"
#include "server/tokenization/tokenizer.h"
#include "tests/support/checkpoint_changes.h"
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
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::vector<std::vector<int64_t>> kPrompts = {{3, 1, 4, 1, 5, 9, 2}, {6}, {5, 3, 5}};

class ArchitectureContractTest : public ::testing::TestWithParam<Architecture> {
 protected:
  void SetUp() override {
    config_ = GetParam().tiny_config();
    RandomTensors random(/*seed=*/11);
    auto model = GetParam().create(ConfigReader(config_), random, "cpu");
    ASSERT_THAT(model, IsOk());
    model_ = *std::move(model);
    for (const auto& [name, tensor] : random.taken()) {
      const float* const data = tensor.const_data_ptr<float>();
      tensors_[name] =
          ess::testing::Float32Tensor(tensor.sizes().vec(), {data, data + tensor.numel()});
    }
    std::string name = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::replace(name.begin(), name.end(), '/', '_');
    folder_ = ess::testing::FreshFolder(::testing::TempDir(), "architecture_contract_" + name);
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<LoadedModel> Load(bool as_stored = false) const {
    std::ofstream(folder_ / "config.json") << config_.dump();
    ess::testing::WriteSafetensors(folder_ / "model.safetensors", tensors_);
    return LoadModelFolder(folder_, {.device = "cpu", .as_stored = as_stored});
  }

  int64_t mixer_count() const { return static_cast<int64_t>(model_->description().mixers.size()); }

  nlohmann::json config_;
  std::unique_ptr<SequenceModel> model_;          // With the random weights.
  std::map<std::string, TensorToWrite> tensors_;  // The same weights.
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

TEST_P(ArchitectureContractTest, AConfigAloneStartsWithTheSeedsWeights) {
  std::ofstream(folder_ / "config.json") << config_.dump();
  std::vector<std::vector<at::Tensor>> logits;
  for (const uint64_t seed : {5, 5, 6}) {
    const auto loaded = LoadModelFolder(folder_, {.device = "cpu", .random_init_seed = seed});
    ASSERT_THAT(loaded, IsOk());
    EXPECT_EQ(loaded->model->description().dtype, "float32");
    EXPECT_EQ(loaded->model->description().weight_bytes,
              4 * loaded->model->description().parameters);
    RecordingSink sink;
    ASSERT_THAT(loaded->model->Forward(kPrompts, sink, CancellationToken(), &logits.emplace_back()),
                IsOk());
    EXPECT_TRUE(at::isfinite(logits.back()[0]).all().item<bool>());
  }

  EXPECT_TRUE(at::equal(logits[0][0], logits[1][0]));
  EXPECT_FALSE(at::equal(logits[0][0], logits[2][0]));
}

TEST_P(ArchitectureContractTest, GaussianPromptsDependOnTheirSeedAndIndexOnly) {
  const auto run = [this](const GaussianPrompts& prompts, RecordingSink& sink) {
    std::vector<at::Tensor> logits;
    EXPECT_THAT(model_->ForwardGaussian(prompts, sink, CancellationToken(), &logits), IsOk());
    return logits;
  };
  RecordingSink many, few, other;
  const auto of_many = run({.count = 3, .length = 7, .seed = 1}, many);
  const auto of_few = run({.count = 2, .length = 7, .seed = 1}, few);
  const auto of_other = run({.count = 2, .length = 7, .seed = 2}, other);

  ASSERT_EQ(of_many.size(), 3u);
  EXPECT_EQ(of_many[1].size(0), 7);
  EXPECT_TRUE(at::equal(of_many[1], of_few[1]));
  EXPECT_FALSE(at::equal(of_many[1], of_many[0]));
  EXPECT_FALSE(at::equal(of_many[1], of_other[1]));
  for (const auto& [key, dense] : few.heads) EXPECT_EQ(dense, many.heads.at(key));
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

TEST_P(ArchitectureContractTest, WeightsAsStoredGiveTheSameModelUpToTheirPrecision) {
  ess::testing::StoreAsBfloat16(tensors_);
  const auto wide = Load();
  const auto stored = Load(/*as_stored=*/true);
  ASSERT_THAT(wide, IsOk());
  ASSERT_THAT(stored, IsOk());
  RecordingSink wide_sink, stored_sink;
  std::vector<at::Tensor> wide_logits, stored_logits;
  ASSERT_THAT(wide->model->Forward(kPrompts, wide_sink, CancellationToken(), &wide_logits), IsOk());
  ASSERT_THAT(stored->model->Forward(kPrompts, stored_sink, CancellationToken(), &stored_logits),
              IsOk());

  EXPECT_EQ(wide->model->description().dtype, "float32");
  EXPECT_EQ(stored->model->description().dtype, "bfloat16");
  EXPECT_EQ(2 * stored->model->description().weight_bytes, wide->model->description().weight_bytes);
  for (size_t p = 0; p < kPrompts.size(); ++p) {
    EXPECT_LT((stored_logits[p] - wide_logits[p]).abs().max().item<double>(),
              0.1 * wide_logits[p].abs().max().item<double>());
  }
  EXPECT_EQ(stored_sink.heads.size(), wide_sink.heads.size());
  // What forms the operators is computed in float32 either way.
  for (const double epsilon : stored_sink.feature_epsilons) EXPECT_LE(epsilon, 0x1p-23);
}

// Inputs of the mixers are 1 and -1 in every layer, which any dtype holds: what differs is computed
// from them.
TEST_P(ArchitectureContractTest, WeightsAsStoredGiveTheOperatorsOfFloat32) {
  ess::testing::LetMixersSeeOnesOfBothSigns(tensors_, config_["vocab_size"].get<int64_t>());
  ess::testing::StoreAsBfloat16(tensors_);
  const auto wide = Load();
  const auto stored = Load(/*as_stored=*/true);
  ASSERT_THAT(wide, IsOk());
  ASSERT_THAT(stored, IsOk());
  RecordingSink wide_sink, stored_sink;
  ASSERT_THAT(wide->model->Forward(kPrompts, wide_sink, CancellationToken(), /*logits=*/nullptr),
              IsOk());
  ASSERT_THAT(
      stored->model->Forward(kPrompts, stored_sink, CancellationToken(), /*logits=*/nullptr),
      IsOk());

  ASSERT_EQ(stored_sink.heads.size(), wide_sink.heads.size());
  for (const auto& [key, expected] : wide_sink.heads) {
    const at::Tensor T = at::tensor(expected, at::kDouble);
    const at::Tensor difference = at::tensor(stored_sink.heads.at(key), at::kDouble).sub(T);
    EXPECT_LE(difference.abs().max().item<double>(), 1e-3 * T.abs().max().item<double>())
        << "mixer " << key.mixer << " prompt " << key.prompt << " head " << key.head;
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
  EXPECT_THAT(description.mixers.front().name, StartsWith("000"));
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

TEST_P(ArchitectureContractTest, TheDescriptionNamesClassAndStateOfTheOperatorsThatArrive) {
  RecordingSink sink;
  ASSERT_THAT(model_->Forward(kPrompts, sink, CancellationToken(), /*logits=*/nullptr), IsOk());

  for (size_t call = 0; call < sink.calls.size(); ++call) {
    const operators::OperatorKey& key = sink.calls[call];
    const Mixer& mixer = model_->description().mixers[static_cast<size_t>(key.mixer)];
    EXPECT_EQ(sink.classes[call], mixer.operator_class);
    const int64_t length = static_cast<int64_t>(kPrompts[static_cast<size_t>(key.prompt)].size());
    for (int64_t i = 0; i < length; ++i) {
      EXPECT_EQ(sink.state_sizes[call].At(i), mixer.state_size.At(i)) << mixer.name << " at " << i;
    }
  }
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
      EXPECT_NEAR(dense[entry], other[entry], 1e-6 * std::max(1.0, std::abs(dense[entry])));
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
