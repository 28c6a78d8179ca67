// Which experts a token goes to, on scores small enough to follow by eye; and contradictions.
#include "server/models/layers/mixture_of_experts.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using ess::testing::IsOk;
using ess::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// One token whose scores are these probabilities.
at::Tensor Logits(const std::vector<double>& probabilities) {
  return at::tensor(probabilities, at::kFloat).log().unsqueeze(0);
}

// One token whose scores are these sigmoids.
at::Tensor SigmoidLogits(const std::vector<double>& scores) {
  return at::logit(at::tensor(scores, at::kFloat)).unsqueeze(0);
}

std::vector<int64_t> Indices(const ExpertChoice& choice) {
  const at::Tensor flat = choice.indices.flatten();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

void ExpectWeights(const ExpertChoice& choice, const std::vector<double>& expected) {
  EXPECT_TRUE(at::allclose(choice.weights.flatten(), at::tensor(expected, at::kFloat), 1e-5));
}

TEST(ChooseExpertsTest, TakesTheLargestProbabilitiesAsWeights) {
  const ExpertChoice choice = ChooseExperts(Logits({0.1, 0.4, 0.2, 0.3}), {}, {.chosen = 2});

  EXPECT_THAT(Indices(choice), ElementsAre(1, 3));
  ExpectWeights(choice, {0.4, 0.3});
}

TEST(ChooseExpertsTest, NormalisesFirstAndScalesThen) {
  const ExpertChoice choice = ChooseExperts(Logits({0.1, 0.4, 0.2, 0.3}), {},
                                            {.chosen = 2, .normalized = true, .scale = 7});

  ExpectWeights(choice, {4, 3});
}

TEST(ChooseExpertsTest, ExpertsOfOtherGroupsAreOutOfTheRace) {
  const at::Tensor logits = Logits({0.30, 0.01, 0.20, 0.19, 0.15, 0.15});
  ExpertRouting routing{.chosen = 2, .group_count = 3, .chosen_groups = 1};

  EXPECT_THAT(Indices(ChooseExperts(logits, {}, routing)), ElementsAre(0, 1));
  routing.group_leaders = 2;  // 0.31, 0.39, 0.30
  EXPECT_THAT(Indices(ChooseExperts(logits, {}, routing)), ElementsAre(2, 3));
}

TEST(ChooseExpertsTest, TheCorrectionChoosesAndDoesNotWeigh) {
  const at::Tensor logits = SigmoidLogits({0.9, 0.5, 0.6, 0.2});
  const at::Tensor correction = at::tensor({-1.0, 0.0, 0.0, 1.0}, at::kFloat);

  const ExpertChoice choice = ChooseExperts(logits, correction, {.chosen = 2, .sigmoid = true});

  EXPECT_THAT(Indices(choice), UnorderedElementsAre(3, 2));
  ExpectWeights(choice, {0.2, 0.6});
}

TEST(CheckExpertsTest, NamesWhatDoesNotFit) {
  const nlohmann::json no_keys = nlohmann::json::object();
  const ConfigReader config(no_keys);
  const auto check = [&](int64_t count, const ExpertRouting& routing) {
    return CheckExperts(config, {.count = count, .routing = routing});
  };
  const auto names = [](const char* text) {
    return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(text));
  };
  EXPECT_THAT(check(4, {.chosen = 5}), names("num_experts_per_tok is 5, but there are 4"));
  EXPECT_THAT(check(4, {.chosen = 1, .group_count = 3}), names("n_group is 3"));
  EXPECT_THAT(check(4, {.chosen = 1, .group_count = 2, .chosen_groups = 3}),
              names("topk_group is 3, but n_group is 2"));
  EXPECT_THAT(check(4, {.chosen = 3, .group_count = 2, .chosen_groups = 1}),
              names("topk_group = 1 groups have 2 experts"));
  EXPECT_THAT(check(4, {.chosen = 1, .group_count = 4, .chosen_groups = 1, .group_leaders = 2}),
              names("leaves 1 of 4 experts for a group; it needs 2"));
  EXPECT_THAT(check(4, {.chosen = 4, .group_count = 2, .chosen_groups = 2, .group_leaders = 2}),
              IsOk());
}

}  // namespace
}  // namespace ess::models
