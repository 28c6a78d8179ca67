#include "server/rpc/profile_messages.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <cstring>

#include "gmock/gmock.h"
#include "tests/support/status_matchers.h"

namespace ess::rpc {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::_;
using ::testing::ElementsAre;

constexpr size_t kMaxMessageBytes = 1 << 20;

// Keeps what was written and checks its size.
struct Collected {
  absl::Status operator()(grpc::ByteBuffer bytes) const {
    EXPECT_LE(bytes.Length(), kMaxMessageBytes);
    EXPECT_TRUE(grpc::SerializationTraits<v1::ProfileResponse>::Deserialize(
                    &bytes, &messages.emplace_back())
                    .ok());
    return absl::OkStatus();
  }
  mutable std::vector<v1::ProfileResponse> messages;
};

struct Case {
  explicit Case(int64_t heads, int64_t positions) {
    job.prompts = {{.id = "p"}};
    job.measures = {{.kind = Measure::Kind::kTolerance, .value = 1},
                    {.kind = Measure::Kind::kSingularValues, .count = 3}};
    plan.token_ids = {std::vector<int64_t>(positions, 7)};
    plan.lengths = {positions};
    plan.positions = {std::vector<int64_t>(positions)};
    plan.layers = {{.mixer = 0, .heads = std::vector<int64_t>(heads)}};
  }
  ProfileJob job;
  ProfilePlan plan;
};

TEST(ProfileMessagesTest, APromptWithoutTokensIsOneMessageWithItsLength) {
  Case c(1, 40);
  c.plan.token_ids = {{}};
  Collected collected;

  ASSERT_THAT(WriteTokens(c.job, c.plan, {{}}, collected), IsOk());

  ASSERT_EQ(collected.messages.size(), 1u);
  EXPECT_EQ(collected.messages[0].tokens().ShortDebugString(), "id: \"p\" length: 40");
}

TEST(ProfileMessagesTest, SplitsALargeTensorAndItsPartsFitTogether) {
  Case c(8, 40000);
  OperatorEss ess{.values = {std::vector<float>(4 * 40000), std::vector<float>(4 * 40000 * 3)}};
  for (auto& values : ess.values) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  }
  Collected collected;

  // The second half of the heads.
  ASSERT_THAT(
      WriteEss(c.job, c.plan,
               {.layer = 0, .prompt = 0, .first_head = 4, .head_count = 4, .ess = ess}, collected),
      IsOk());

  ASSERT_EQ(collected.messages.size(), 3u);  // 2.4 MiB: as few as there can be.
  const std::vector<int64_t> first = {4 * 40000, 4 * 40000 * 3};
  std::vector<size_t> seen = {0, 0};
  for (const auto& message : collected.messages) {
    for (const v1::EssSlice& slice : message.ess().slices()) {
      const int m = slice.measure();
      ASSERT_EQ(slice.first_element(), first[m] + static_cast<int64_t>(seen[m]));
      const size_t count = slice.values().size() / sizeof(float);
      ASSERT_EQ(std::memcmp(slice.values().data(), &ess.values[m][seen[m]], count * sizeof(float)),
                0);
      seen[m] += count;
      EXPECT_EQ(slice.shape_size(), m == 0 ? 2 : 3);
    }
  }
  EXPECT_EQ(seen[0], ess.values[0].size());
  EXPECT_EQ(seen[1], ess.values[1].size());
}

TEST(ProfileMessagesTest, FlagsOfCertaintyTravelWithTheirValues) {
  Case c(2, 300000);
  c.job.options.certify = true;
  OperatorEss ess{.values = {std::vector<float>(2 * 300000), std::vector<float>(2 * 300000 * 3)}};
  for (const auto& values : ess.values) {
    auto& certain = ess.certain.emplace_back(values.size());
    for (size_t i = 0; i < certain.size(); ++i) certain[i] = i % 7 == 0;
  }
  Collected collected;

  ASSERT_THAT(
      WriteEss(c.job, c.plan,
               {.layer = 0, .prompt = 0, .first_head = 0, .head_count = 2, .ess = ess}, collected),
      IsOk());

  std::vector<size_t> seen = {0, 0};
  for (const auto& message : collected.messages) {
    for (const v1::EssSlice& slice : message.ess().slices()) {
      const size_t count = slice.certain().size();
      ASSERT_EQ(slice.values().size(), count * sizeof(float));
      size_t& at = seen[slice.measure()];
      ASSERT_EQ(std::memcmp(slice.certain().data(), &ess.certain[slice.measure()][at], count), 0);
      at += count;
    }
  }
  EXPECT_EQ(seen[0], ess.values[0].size());
  EXPECT_EQ(seen[1], ess.values[1].size());
}

TEST(ProfileMessagesTest, ReducedTensorsHaveTheShapeThatIsLeft) {
  Case c(5, 7);
  for (const Reduction reduction : {Reduction::kHeads, Reduction::kPositions}) {
    c.job.reduction = reduction;
    const bool heads = reduction == Reduction::kHeads;
    // The last two heads of five; or all five at once.
    const size_t rows = heads ? 7 : 2;
    const OperatorEss ess{.values = {std::vector<float>(rows), std::vector<float>(rows * 3)}};
    Collected collected;

    ASSERT_THAT(WriteEss(c.job, c.plan,
                         {.layer = 0,
                          .prompt = 0,
                          .first_head = heads ? 0 : 3,
                          .head_count = heads ? 5 : 2,
                          .ess = ess},
                         collected),
                IsOk());

    ASSERT_EQ(collected.messages.size(), 1u);
    const auto& slices = collected.messages[0].ess().slices();
    EXPECT_THAT(slices[0].shape(), ElementsAre(heads ? 7 : 5));
    EXPECT_THAT(slices[1].shape(), ElementsAre(heads ? 7 : 5, 3));
    EXPECT_EQ(slices[0].first_element(), heads ? 0 : 3);
    EXPECT_EQ(slices[1].first_element(), heads ? 0 : 9);
  }
}

TEST(ProfileMessagesTest, SendsNothingForAPromptWithoutSelectedPositions) {
  Case c(2, 0);
  const OperatorEss ess{.values = {{}, {}}};
  Collected collected;

  ASSERT_THAT(
      WriteEss(c.job, c.plan,
               {.layer = 0, .prompt = 0, .first_head = 0, .head_count = 2, .ess = ess}, collected),
      IsOk());

  EXPECT_TRUE(collected.messages.empty());
}

TEST(ProfileMessagesTest, SplitsTheTokensOfALongPrompt) {
  Case c(1, 100000);
  const std::vector<std::vector<std::string>> texts = {
      std::vector<std::string>(100000, std::string(20, 'x'))};
  Collected collected;

  ASSERT_THAT(WriteTokens(c.job, c.plan, texts, collected), IsOk());

  ASSERT_GT(collected.messages.size(), 1u);
  int64_t seen = 0;
  for (const auto& message : collected.messages) {
    EXPECT_EQ(message.tokens().first_token(), seen);
    EXPECT_EQ(message.tokens().token_ids_size(), message.tokens().token_texts_size());
    seen += message.tokens().token_ids_size();
  }
  EXPECT_EQ(seen, 100000);
}

TEST(ProfileMessagesTest, SplitsALargeSummaryAndMarksTheLast) {
  ProfileSummary summary;
  summary.layers.resize(3);
  for (LayerRecord& record : summary.layers) {
    record.routes = {"inertia_tree"};
    record.below_noise_floor = {5};
    record.noise_floors.assign(100000, 0.5);
  }
  Collected collected;

  ASSERT_THAT(WriteSummary(summary, collected), IsOk());

  ASSERT_GT(collected.messages.size(), 1u);
  int64_t floors = 0;
  for (size_t i = 0; i < collected.messages.size(); ++i) {
    const v1::ProfileSummary& part = collected.messages[i].summary();
    EXPECT_EQ(part.last(), i + 1 == collected.messages.size());
    for (const v1::LayerNotes& notes : part.layers()) {
      EXPECT_EQ(notes.layer() * 100000 + notes.first_floor(), floors);
      floors += notes.noise_floors_size();
      EXPECT_EQ(notes.measures_size(), notes.first_floor() == 0 ? 1 : 0);
    }
  }
  EXPECT_EQ(floors, 300000);
}

TEST(ProfileMessagesTest, DescribesEachLayerOnceWhereverTheSummaryIsCut) {
  for (int floors = 131000; floors < 131100; floors += 3) {
    ProfileSummary summary;
    summary.layers.resize(2);
    for (LayerRecord& record : summary.layers) {
      record.routes.assign(10, "inertia_tree");
      record.below_noise_floor.assign(10, 1);
      record.noise_floors.assign(1, 0.5f);
    }
    summary.layers[0].noise_floors.assign(floors - 70, 0.5f);
    Collected collected;
    ASSERT_THAT(WriteSummary(summary, collected), IsOk());
    int described = 0;
    for (const auto& message : collected.messages) {
      for (const auto& notes : message.summary().layers()) described += notes.measures_size();
    }
    EXPECT_EQ(described, 20) << floors;
  }
}

TEST(ProfileMessagesTest, RefusesAHeaderOfMoreThanAMessage) {
  ProfileJob job;
  ProfilePlan plan;
  std::vector<int64_t> scattered;
  for (int64_t i = 0; i < 2000; ++i) scattered.push_back(i * i);
  plan.layers.assign(100, {.mixer = 0, .heads = scattered});
  auto description = std::make_shared<models::ModelDescription>();
  description->mixers = {{.name = "000", .layer_index = 0, .head_count = 1, .channels = {1}}};
  Collected collected;

  EXPECT_THAT(WriteHeader(job, plan, {.name = "m", .description = description}, "1", collected),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("heads: ")));
  EXPECT_TRUE(collected.messages.empty());
}

TEST(ProfileMessagesTest, StopsAtTheFirstErrorOfTheWriter) {
  Case c(1, 100000);
  int writes = 0;
  auto fail = [&writes](const grpc::ByteBuffer&) {
    ++writes;
    return absl::CancelledError("left");
  };

  EXPECT_THAT(WriteTokens(c.job, c.plan, {{}}, fail), StatusIs(absl::StatusCode::kCancelled, _));
  EXPECT_EQ(writes, 1);
}

}  // namespace
}  // namespace ess::rpc
