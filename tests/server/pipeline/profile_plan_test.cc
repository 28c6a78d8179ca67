#include "server/pipeline/profile_plan.h"

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// Two attention layers of 4 and 2 heads, the second with two operators.
models::ModelDescription TwoLayers() {
  models::ModelDescription model;
  model.vocabulary_size = 10;
  model.max_positions = 16;
  model.mixers = {{.name = "000", .layer_index = 0, .head_count = 4, .channels = {8}},
                  {.name = "001.attention", .layer_index = 1, .head_count = 2, .channels = {8}},
                  {.name = "001.mamba", .layer_index = 1, .head_count = 4, .channels = {8}}};
  return model;
}

ProfileJob JobOf(size_t prompts) {
  ProfileJob job;
  for (size_t p = 0; p < prompts; ++p) job.prompts.push_back({.id = std::to_string(p)});
  job.measures = {{.kind = Measure::Kind::kTolerance, .value = 1e-3}};
  return job;
}

TEST(ProfilePlanTest, SelectsEverythingByDefault) {
  const auto plan = MakeProfilePlan(JobOf(2), {{1, 2, 3}, {4}}, TwoLayers(), {});

  ASSERT_THAT(plan, IsOk());
  ASSERT_EQ(plan->layers.size(), 3u);
  EXPECT_THAT(plan->layers[1].heads, ElementsAre(0, 1));
  EXPECT_THAT(plan->all_positions, ElementsAre(0, 1, 2));
  EXPECT_THAT(plan->positions[1], ElementsAre(0));
}

TEST(ProfilePlanTest, GaussianPromptsHaveALengthAndNoTokens) {
  ProfileJob job = JobOf(2);
  job.gaussian = {.count = 2, .length = 5};

  const auto plan = MakeProfilePlan(job, {{}, {}}, TwoLayers(), {});

  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->lengths, ElementsAre(5, 5));
  EXPECT_THAT(plan->positions[1], ElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(plan->PositionCount(), 10);

  job.gaussian->length = 17;
  EXPECT_THAT(MakeProfilePlan(job, {{}, {}}, TwoLayers(), {}),
              StatusIs(kInvalid, HasSubstr("gaussian.length: 17 positions; the model's limit is 16 "
                                           "(max_positions)")));
}

TEST(ProfilePlanTest, SelectsAllOperatorsOfALayerByIndexAndOneByName) {
  ProfileJob job = JobOf(1);
  job.layers.indices = {{{1, 1, 1}}};
  ASSERT_THAT(MakeProfilePlan(job, {{1}}, TwoLayers(), {}), IsOk());
  EXPECT_EQ(MakeProfilePlan(job, {{1}}, TwoLayers(), {})->layers.size(), 2u);

  job.layers = {.indices = {}, .names = {"001.mamba"}};
  const auto plan = MakeProfilePlan(job, {{1}}, TwoLayers(), {});
  ASSERT_THAT(plan, IsOk());
  ASSERT_EQ(plan->layers.size(), 1u);
  EXPECT_EQ(plan->layers[0].mixer, 2);
}

TEST(ProfilePlanTest, LeavesOutLayersThatLackTheSelectedHeads) {
  ProfileJob job = JobOf(1);
  job.heads = {{{3, 3, 1}}};

  const auto plan = MakeProfilePlan(job, {{1}}, TwoLayers(), {});

  ASSERT_THAT(plan, IsOk());
  ASSERT_EQ(plan->layers.size(), 2u);
  EXPECT_EQ(plan->layers[0].mixer, 0);
  EXPECT_EQ(plan->layers[1].mixer, 2);
}

TEST(ProfilePlanTest, GivesAShortPromptNoPositionsWhereTheSelectionIsBeyondItsEnd) {
  ProfileJob job = JobOf(2);
  job.positions = {{{2, 2, 1}}};

  const auto plan = MakeProfilePlan(job, {{1, 2, 3}, {4}}, TwoLayers(), {});

  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->positions[0], ElementsAre(2));
  EXPECT_THAT(plan->positions[1], IsEmpty());
}

TEST(ProfilePlanTest, RefusesAPromptWithoutTokens) {
  EXPECT_THAT(MakeProfilePlan(JobOf(1), {{}}, TwoLayers(), {}),
              StatusIs(kInvalid, HasSubstr("prompt '0' has no tokens")));
}

TEST(ProfilePlanTest, RefusesATokenOutsideTheVocabulary) {
  for (int64_t id : {-1, 10}) {
    EXPECT_THAT(
        MakeProfilePlan(JobOf(1), {{1, id}}, TwoLayers(), {}),
        StatusIs(kInvalid, AllOf(HasSubstr("token id " + std::to_string(id) + " at index 1"),
                                 HasSubstr("vocabulary of 10 tokens"))));
  }
}

TEST(ProfilePlanTest, RefusesAPromptLongerThanTheModelTakes) {
  EXPECT_THAT(MakeProfilePlan(JobOf(1), {std::vector<int64_t>(17, 1)}, TwoLayers(), {}),
              StatusIs(kInvalid, HasSubstr("17 tokens; the model's limit is 16 (max_positions)")));
}

TEST(ProfilePlanTest, RefusesAPromptLongerThanTheServerTakes) {
  EXPECT_THAT(MakeProfilePlan(JobOf(1), {std::vector<int64_t>(9, 1)}, TwoLayers(),
                              {.max_prompt_tokens = 8}),
              StatusIs(kInvalid, HasSubstr("9 tokens; the limit is 8 (max_prompt_tokens)")));
}

TEST(ProfilePlanTest, RefusesSelectionsThatExistNowhere) {
  ProfileJob job = JobOf(1);
  job.layers.names = {"007"};
  EXPECT_THAT(MakeProfilePlan(job, {{1}}, TwoLayers(), {}),
              StatusIs(kInvalid, HasSubstr("layers: there is no mixing operator '007'")));
  job = JobOf(1);
  job.layers.indices = {{{2, 2, 1}}};
  EXPECT_THAT(MakeProfilePlan(job, {{1}}, TwoLayers(), {}),
              StatusIs(kInvalid, HasSubstr("layers: index 2 does not exist")));
  job = JobOf(1);
  job.heads = {{{4, 4, 1}}};
  EXPECT_THAT(MakeProfilePlan(job, {{1}}, TwoLayers(), {}),
              StatusIs(kInvalid, HasSubstr("heads: index 4 does not exist")));
  job = JobOf(1);
  job.positions = {{{1, 1, 1}}};
  EXPECT_THAT(MakeProfilePlan(job, {{1}}, TwoLayers(), {}),
              StatusIs(kInvalid, HasSubstr("positions: index 1 does not exist")));
}

TEST(ProfilePlanTest, RefusesCausalRanksOfWhatIsNoRecurrence) {
  models::ModelDescription model = TwoLayers();
  model.mixers[2].state_size = operators::StateSize::Constant(4);
  ProfileJob job = JobOf(1);
  job.measures = {{.kind = Measure::Kind::kCausal}};
  job.layers.names = {"001.mamba"};
  EXPECT_THAT(MakeProfilePlan(job, {{1}}, model, {}), IsOk());

  job.layers.names = {"001.mamba", "001.attention"};
  EXPECT_THAT(MakeProfilePlan(job, {{1}}, model, {}),
              StatusIs(kInvalid, HasSubstr("causal is for recurrences, and operator "
                                           "'001.attention'")));
}

TEST(ProfilePlanTest, RefusesMoreReferenceWorkThanAllowedWithTheEstimate) {
  ProfileJob job = JobOf(1);
  job.measures = {{.kind = Measure::Kind::kSingularValues, .count = 2}};

  EXPECT_THAT(
      MakeProfilePlan(job, {std::vector<int64_t>(16, 1)}, TwoLayers(), {.max_reference_work = 100}),
      StatusIs(kInvalid, AllOf(HasSubstr("measures: "), HasSubstr("the limit is 1e+02"),
                               HasSubstr("max_reference_work"))));
}

TEST(ProfilePlanTest, NeverCountsFastMeasuresAsReferenceWork) {
  EXPECT_THAT(MakeProfilePlan(JobOf(1), {std::vector<int64_t>(16, 1)}, TwoLayers(),
                              {.max_reference_work = 1}),
              IsOk());
}

TEST(ProfilePlanTest, RefusesALargerAnswerThanAllowed) {
  ProfileJob job = JobOf(2);
  job.measures.push_back({.kind = Measure::Kind::kSingularValues, .count = 5});
  // 10 heads, 3 + 1 positions, 6 floats each.
  EXPECT_THAT(MakeProfilePlan(job, {{1, 2, 3}, {4}}, TwoLayers(), {.max_result_bytes = 960}),
              IsOk());
  EXPECT_THAT(MakeProfilePlan(job, {{1, 2, 3}, {4}}, TwoLayers(), {.max_result_bytes = 959}),
              StatusIs(kInvalid, AllOf(HasSubstr("960 bytes"), HasSubstr("max_result_bytes"))));
}

TEST(ProfilePlanTest, CountsTheBytesOfReducedAndCertifiedAnswers) {
  ProfileJob job = JobOf(2);
  const auto bytes = [&job](int64_t limit) {
    return MakeProfilePlan(job, {{1, 2, 3}, {4}}, TwoLayers(), {.max_result_bytes = limit});
  };
  job.options.certify = true;  // 10 heads, 3 + 1 positions, 5 bytes each.
  EXPECT_THAT(bytes(200), IsOk());
  EXPECT_THAT(bytes(199), StatusIs(kInvalid, HasSubstr("200 bytes")));
  job.reduction = Reduction::kHeads;  // 3 operators.
  EXPECT_THAT(bytes(60), IsOk());
  EXPECT_THAT(bytes(59), StatusIs(kInvalid, HasSubstr("60 bytes")));
  job.reduction = Reduction::kPositions;  // 10 heads, 2 prompts.
  EXPECT_THAT(bytes(100), IsOk());
  EXPECT_THAT(bytes(99), StatusIs(kInvalid, HasSubstr("100 bytes")));
}

TEST(ProfilePlanTest, APartOfASetIsCheckedByItselfOnlyForItsPrompts) {
  ProfileJob job = JobOf(1);
  job.positions.ranges = {{.first = 5, .last = 7}};
  const ProfileLimits none{.max_reference_work = 0, .max_result_bytes = 0};
  EXPECT_THAT(MakeProfilePlan(job, {{1, 2, 3}}, TwoLayers(), {}), StatusIs(kInvalid, _));

  job.longest_of_set = 8;
  const auto plan = MakeProfilePlan(job, {{1, 2, 3}}, TwoLayers(), none);

  ASSERT_THAT(plan, IsOk());
  EXPECT_THAT(plan->all_positions, ElementsAre(5, 6, 7));
  EXPECT_THAT(plan->positions[0], IsEmpty());
  EXPECT_THAT(MakeProfilePlan(job, {{1, 99}}, TwoLayers(), none),
              StatusIs(kInvalid, HasSubstr("vocabulary")));
}

}  // namespace
}  // namespace ess
