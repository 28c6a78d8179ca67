// A prompt gives the same bits alone, beside others, and again.
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/cancellation.h"
#include "server/models/architectures.h"
#include "tests/support/random_tensors.h"
#include "tests/support/recording_sink.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using ess::testing::IsOk;
using ess::testing::RandomTensors;
using ess::testing::RecordingSink;

// As wide as SmolLM2: the matrix library picks its kernels by the shape.
nlohmann::json WideConfig(const std::string& model_type) {
  nlohmann::json config = {{"model_type", model_type}, {"vocab_size", 211},
                           {"hidden_size", 576},       {"num_hidden_layers", 2},
                           {"num_attention_heads", 9}, {"max_position_embeddings", 64}};
  if (model_type == "llama") {
    config["num_key_value_heads"] = 3;
    config["intermediate_size"] = 1536;
  }
  if (model_type == "ess_testbed") config["mixers"] = {"GLA", "LA"};
  return config;
}

std::vector<int64_t> MakePrompt(int64_t length) {
  std::vector<int64_t> token_ids(static_cast<size_t>(length));
  for (size_t i = 0; i < token_ids.size(); ++i) {
    token_ids[i] = static_cast<int64_t>(i * 37 + static_cast<size_t>(length) * 11) % 211;
  }
  return token_ids;
}

struct Captured {
  RecordingSink sink;
  std::vector<at::Tensor> logits;
};

class RaggedBatchTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const nlohmann::json config = WideConfig(GetParam());
    RandomTensors tensors(/*seed=*/7);
    auto model =
        FindArchitecture(GetParam())->create(ConfigReader(config), tensors, /*device=*/"cpu");
    ASSERT_THAT(model, IsOk());
    model_ = *std::move(model);
  }

  void Run(const std::vector<std::vector<int64_t>>& prompts, Captured& captured) const {
    ASSERT_THAT(model_->Forward(prompts, captured.sink, CancellationToken(), &captured.logits),
                IsOk());
    ASSERT_EQ(captured.logits.size(), prompts.size());
  }

  // Whether prompt `a` of one run has the bits of prompt `b` of another.
  void ExpectSameBits(const Captured& one, int64_t a, const Captured& other, int64_t b) const {
    EXPECT_TRUE(
        at::equal(one.logits[static_cast<size_t>(a)], other.logits[static_cast<size_t>(b)]));
    int64_t compared = 0;
    for (const auto& [key, dense] : one.sink.heads) {
      if (key.prompt != a) continue;
      EXPECT_EQ(dense, other.sink.heads.at({key.mixer, b, key.head}));
      ++compared;
    }
    EXPECT_EQ(compared, 2 * 9);
  }

  std::unique_ptr<SequenceModel> model_;
};

TEST_P(RaggedBatchTest, EveryLengthGivesTheSameBitsAloneAndTogether) {
  std::vector<std::vector<int64_t>> prompts;
  for (int64_t length = 1; length <= 40; ++length) prompts.push_back(MakePrompt(length));
  Captured together;
  Run(prompts, together);

  for (int64_t index = 0; index < 40; ++index) {
    SCOPED_TRACE("length " + std::to_string(index + 1));
    Captured alone;
    Run({prompts[static_cast<size_t>(index)]}, alone);
    ExpectSameBits(alone, 0, together, index);
  }
}

TEST_P(RaggedBatchTest, APromptRepeatedInABatchGivesTheSameBitsEachTime) {
  Captured alone, repeated;
  Run({MakePrompt(13)}, alone);
  Run({MakePrompt(13), MakePrompt(40), MakePrompt(13), MakePrompt(1), MakePrompt(13)}, repeated);

  for (const int64_t index : {0, 2, 4}) ExpectSameBits(alone, 0, repeated, index);
}

TEST_P(RaggedBatchTest, WhatIsWantedDoesNotChangeTheBits) {
  const std::vector<std::vector<int64_t>> prompts = {MakePrompt(21)};
  Captured all, last;
  last.sink.wants = [](int64_t mixer) { return mixer == 1; };
  Run(prompts, all);
  ASSERT_THAT(model_->Forward(prompts, last.sink, CancellationToken(), /*logits=*/nullptr), IsOk());

  EXPECT_EQ(last.sink.heads.size(), 9u);
  for (const auto& [key, dense] : last.sink.heads) EXPECT_EQ(dense, all.sink.heads.at(key));
}

INSTANTIATE_TEST_SUITE_P(Architectures, RaggedBatchTest,
                         ::testing::Values("ess_testbed", "gpt2", "llama"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace ess::models
