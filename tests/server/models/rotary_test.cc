// Rotary frequencies of each kind against the formulas, evaluated here in float64.
#include "server/models/layers/rotary.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess::models {
namespace {

using absl::StatusCode;
using ess::testing::IsOk;
using ess::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kHeadDim = 16;
constexpr int64_t kMaxPositions = 64;

absl::StatusOr<RotaryScaling> Read(const std::string& text, int64_t head_dim = kHeadDim,
                                   const RotaryKeys& keys = {}) {
  const nlohmann::json json = nlohmann::json::parse(text);
  return ReadRotaryScaling(ConfigReader(json), head_dim, kMaxPositions, keys);
}

double Plain(int64_t pair, double theta = 10000) {
  return std::pow(theta, -2.0 * static_cast<double>(pair) / kHeadDim);
}

template <typename Expected>
void ExpectFrequencies(const RotaryScaling& scaling, int64_t length, Expected expected) {
  const at::Tensor frequencies = InverseFrequencies(scaling, length);
  ASSERT_EQ(frequencies.numel(), kHeadDim / 2);
  for (int64_t pair = 0; pair < kHeadDim / 2; ++pair) {
    const double wanted = expected(pair);
    EXPECT_NEAR(frequencies[pair].item<double>(), wanted, 1e-6 * std::abs(wanted)) << pair;
  }
}

TEST(RotaryTest, DefaultFrequenciesFallGeometrically) {
  const auto scaling = Read(R"({"rope_theta": 500})");
  ASSERT_THAT(scaling, IsOk());

  ExpectFrequencies(*scaling, 10, [](int64_t pair) { return Plain(pair, 500); });
}

TEST(RotaryTest, LinearDividesEveryFrequency) {
  const auto scaling = Read(R"({"rope_scaling": {"type": "linear", "factor": 4}})");
  ASSERT_THAT(scaling, IsOk());

  ExpectFrequencies(*scaling, 10, [](int64_t pair) { return Plain(pair) / 4; });
}

TEST(RotaryTest, TheThreeSpellingsMeanTheSame) {
  for (const char* text : {
           R"({"rope_theta": 300, "rope_scaling": {"type": "linear", "factor": 4}})",
           R"({"rope_theta": 300, "rope_scaling": {"rope_type": "linear", "factor": 4}})",
           R"({"rope_parameters": {"rope_theta": 300, "rope_type": "linear", "factor": 4}})",
           R"({"rope_parameters": {
                 "full_attention": {"rope_theta": 300, "rope_type": "linear", "factor": 4},
                 "sliding_attention": {"rope_theta": 7}}})",
       }) {
    SCOPED_TRACE(text);
    const auto scaling = Read(text);
    ASSERT_THAT(scaling, IsOk());

    ExpectFrequencies(*scaling, 10, [](int64_t pair) { return Plain(pair, 300) / 4; });
  }
}

TEST(RotaryTest, DynamicGrowsTheBaseBeyondTheLimit) {
  const auto scaling = Read(R"({"rope_scaling": {"rope_type": "dynamic", "factor": 3}})");
  ASSERT_THAT(scaling, IsOk());
  const double stretch = 3.0 * 100 / kMaxPositions - 2;
  const double base = 10000 * std::pow(stretch, kHeadDim / (kHeadDim - 2.0));

  ExpectFrequencies(*scaling, kMaxPositions, [](int64_t pair) { return Plain(pair); });
  ExpectFrequencies(*scaling, 100, [&](int64_t pair) { return Plain(pair, base); });
  EXPECT_EQ(scaling->PositionLimit(), 3 * kMaxPositions);
}

TEST(RotaryTest, Llama3KeepsShortWavesDividesLongOnesAndBlendsBetween) {
  const auto scaling = Read(R"({"rope_theta": 100, "rope_scaling": {
      "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
      "original_max_position_embeddings": 32}})");
  ASSERT_THAT(scaling, IsOk());

  int kept = 0, blended = 0, divided = 0;
  ExpectFrequencies(*scaling, 10, [&](int64_t pair) {
    const double plain = Plain(pair, 100);
    const double wavelength = 2 * std::numbers::pi / plain;
    if (wavelength > 32.0) return ++divided, plain / 8;
    if (wavelength < 32.0 / 4) return ++kept, plain;
    const double t = (32.0 / wavelength - 1) / (4 - 1);
    return ++blended, (1 - t) * plain / 8 + t * plain;
  });
  EXPECT_GT(kept, 0);
  EXPECT_GT(blended, 0);
  EXPECT_GT(divided, 0);
}

TEST(RotaryTest, YarnRampsFromKeptToInterpolated) {
  const auto scaling = Read(R"({"rope_scaling": {
      "rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16}})");
  ASSERT_THAT(scaling, IsOk());
  auto dimension_at = [](double rotations) {
    return kHeadDim * std::log(16 / (rotations * 2 * std::numbers::pi)) / (2 * std::log(1e4));
  };
  const double low = std::max(std::floor(dimension_at(32)), 0.0);
  const double high = std::ceil(dimension_at(1));

  ExpectFrequencies(*scaling, 10, [&](int64_t pair) {
    const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
    return Plain(pair) / 4 * ramp + Plain(pair) * (1 - ramp);
  });
  EXPECT_DOUBLE_EQ(scaling->attention_factor, 0.1 * std::log(4) + 1);
}

TEST(RotaryTest, LongRopeChoosesItsFactorsByTheLengthOfThePrompt) {
  const auto scaling = Read(R"({"original_max_position_embeddings": 32, "rope_scaling": {
      "type": "su", "short_factor": [1, 1, 1, 1, 2, 2, 2, 2],
      "long_factor": [1, 2, 3, 4, 5, 6, 7, 8]}})");
  ASSERT_THAT(scaling, IsOk());

  ExpectFrequencies(*scaling, 32, [](int64_t pair) { return Plain(pair) / (pair < 4 ? 1 : 2); });
  ExpectFrequencies(*scaling, 33, [](int64_t pair) { return Plain(pair) / (pair + 1.0); });
  EXPECT_DOUBLE_EQ(scaling->attention_factor, std::sqrt(1 + std::log(2) / std::log(32)));
}

TEST(RotaryTest, ProportionalLeavesTheLastPairsStill) {
  const auto scaling =
      Read(R"({"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 0.5}})");
  ASSERT_THAT(scaling, IsOk());

  ExpectFrequencies(*scaling, 10, [](int64_t pair) { return pair < 4 ? Plain(pair) : 0.0; });
}

TEST(RotaryTest, RotationTurnsEachPairByItsAngle) {
  const auto scaling = Read("{}");
  ASSERT_THAT(scaling, IsOk());
  const at::Tensor x = at::randn({5, 3, kHeadDim});  // [L, H, d]
  const RotaryTable table = MakeRotaryTable(*scaling, 5, x.device());

  const at::Tensor rotated = RotateHeads(x, table);  // [H, L, d]

  ASSERT_EQ(rotated.sizes(), (std::vector<int64_t>{3, 5, kHeadDim}));
  for (int64_t position = 0; position < 5; ++position) {
    for (int64_t pair = 0; pair < kHeadDim / 2; ++pair) {
      const double angle = static_cast<double>(position) * Plain(pair);
      const double first = x[position][1][pair].item<double>();
      const double second = x[position][1][pair + kHeadDim / 2].item<double>();
      EXPECT_NEAR(rotated[1][position][pair].item<double>(),
                  first * std::cos(angle) - second * std::sin(angle), 1e-5);
      EXPECT_NEAR(rotated[1][position][pair + kHeadDim / 2].item<double>(),
                  second * std::cos(angle) + first * std::sin(angle), 1e-5);
    }
  }
}

TEST(RotaryTest, AShareOfTheDimensionsMayRotateAndTheRestPassesThrough) {
  const RotaryKeys keys = {
      .fraction = "rotary_pct", .default_fraction = 0.25, .may_be_partial = true};
  for (const char* text : {"{}", R"({"rotary_pct": 0.25})",
                           R"({"rope_parameters": {"partial_rotary_factor": 0.25}})"}) {
    const auto scaling = Read(text, kHeadDim, keys);
    ASSERT_THAT(scaling, IsOk());
    EXPECT_EQ(scaling->head_dim, 4);
    const at::Tensor x = at::randn({5, 3, kHeadDim});

    const at::Tensor rotated =
        RotateHeads(x, MakeRotaryTable(*scaling, 5, x.device())).transpose(0, 1);

    const at::Tensor alone =
        RotateHeads(x.narrow(2, 0, 4).contiguous(), MakeRotaryTable(*Read("{}", 4), 5, x.device()));
    EXPECT_TRUE(at::equal(rotated.narrow(2, 0, 4), alone.transpose(0, 1)));
    EXPECT_TRUE(at::equal(rotated.narrow(2, 4, 12), x.narrow(2, 4, 12)));
  }
}

TEST(RotaryTest, LayersWithAWindowHaveParametersOfTheirOwn) {
  const RotaryKeys window = {.theta = "rope_local_base_freq", .layer_type = "sliding_attention"};
  for (const char* text : {
           R"({"rope_theta": 300, "rope_local_base_freq": 7,
               "rope_scaling": {"rope_type": "linear", "factor": 4}})",
           R"({"rope_parameters": {
                 "full_attention": {"rope_theta": 300, "rope_type": "linear", "factor": 4},
                 "sliding_attention": {"rope_theta": 7}}})",
       }) {
    SCOPED_TRACE(text);
    const auto scaling = Read(text, kHeadDim, window);
    ASSERT_THAT(scaling, IsOk());

    ExpectFrequencies(*scaling, 10, [](int64_t pair) { return Plain(pair, 7); });
  }
}

TEST(RotaryTest, YarnMayBeAnOlderNameOfLongRope) {
  const char* text = R"({"original_max_position_embeddings": 32, "rope_scaling": {"type": "yarn",
      "short_factor": [1, 1, 1, 1, 2, 2, 2, 2], "long_factor": [1, 2, 3, 4, 5, 6, 7, 8]}})";
  const auto scaling = Read(text, kHeadDim, {.yarn_is_longrope = true});
  ASSERT_THAT(scaling, IsOk());

  EXPECT_EQ(scaling->kind, RotaryScaling::Kind::kLongRope);
}

TEST(RotaryTest, AnUnknownKindNamesWhatIsSupported) {
  EXPECT_THAT(Read(R"({"rope_scaling": {"rope_type": "spiral", "factor": 4}})"),
              StatusIs(StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("rope_scaling.rope_type"), HasSubstr("spiral"),
                             HasSubstr("default, linear, dynamic, yarn"))));
}

TEST(RotaryTest, ParametersThatContradictAreRefused) {
  EXPECT_THAT(Read("{}", /*head_dim=*/7), StatusIs(StatusCode::kDataLoss, HasSubstr("head_dim")));
  EXPECT_THAT(Read(R"({"rope_scaling": {"type": "linear"}})"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("rope_scaling.factor is missing")));
  EXPECT_THAT(Read(R"({"rope_scaling": {"type": "linear", "factor": 0}})"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("rope_scaling.factor is 0")));
  EXPECT_THAT(Read(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                       "high_freq_factor": 4}})"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("high_freq_factor")));
  EXPECT_THAT(Read(R"({"rope_scaling": {"rope_type": "longrope", "short_factor": [1],
                       "long_factor": [1]}})"),
              StatusIs(StatusCode::kDataLoss, HasSubstr("short_factor has 1 entries; expected 8")));
  EXPECT_THAT(Read(R"({"partial_rotary_factor": 0.5})"),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("partial_rotary_factor")));
}

}  // namespace
}  // namespace ess::models
