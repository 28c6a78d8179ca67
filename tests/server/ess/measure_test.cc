#include "server/ess/measure.h"

#include <cmath>
#include <limits>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/status_matchers.h"

namespace ess {
namespace {

using ::ess::testing::IsOk;
using ::ess::testing::StatusIs;
using ::testing::HasSubstr;

std::string Canonical(std::string_view text) {
  const absl::StatusOr<Measure> measure = ParseMeasure(text);
  return measure.ok() ? FormatMeasure(*measure) : measure.status().ToString();
}

TEST(MeasureTest, CanonicalSpellingUsesTheFewestDigits) {
  EXPECT_EQ(Canonical("tolerance:1e-3"), "tolerance:0.001");
  EXPECT_EQ(Canonical("tolerance:0.0001"), "tolerance:0.0001");
  EXPECT_EQ(Canonical("tolerance:0.00001"), "tolerance:1e-05");
  EXPECT_EQ(Canonical("tolerance:1.0"), "tolerance:1");
  EXPECT_EQ(Canonical("relative:5e-1"), "relative:0.5");
  EXPECT_EQ(Canonical("head_relative:0.30000000000000004"), "head_relative:0.30000000000000004");
  EXPECT_EQ(Canonical("singular_values:08"), "singular_values:8");
  EXPECT_EQ(Canonical("entropy"), "entropy");
  EXPECT_EQ(Canonical("spectral_norm"), "spectral_norm");
  EXPECT_EQ(Canonical("frobenius_norm"), "frobenius_norm");
  EXPECT_EQ(Canonical("causal"), "causal");
}

TEST(MeasureTest, CanonicalSpellingParsesBackToTheSameMeasure) {
  for (const double value : {1e-3, 0.1 + 0.2, 1.0 / 3, 5e-324, 1e300}) {
    const Measure measure{.kind = Measure::Kind::kTolerance, .value = value};

    const absl::StatusOr<Measure> parsed = ParseMeasure(FormatMeasure(measure));

    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(*parsed, measure) << FormatMeasure(measure);
  }
}

TEST(MeasureTest, RefusesTolerancesThatAreNotPositiveAndFinite) {
  for (const std::string_view bad : {"0", "-1e-3", "nan", "inf", "-inf", "1e400"}) {
    EXPECT_THAT(ParseMeasure("tolerance:" + std::string(bad)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("tolerance")))
        << bad;
  }
}

TEST(MeasureTest, RefusesSharesOutsideZeroToOne) {
  for (const std::string_view kind : {"relative:", "head_relative:"}) {
    for (const std::string_view bad : {"0", "1", "1.5", "-0.1", "nan"}) {
      EXPECT_THAT(ParseMeasure(std::string(kind) + std::string(bad)),
                  StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("less than 1")))
          << kind << bad;
    }
  }
}

TEST(MeasureTest, RefusesCountsOutsideOneTo1024) {
  for (const std::string_view bad : {"0", "-3", "1025"}) {
    EXPECT_THAT(ParseMeasure("singular_values:" + std::string(bad)),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("from 1 to 1024")))
        << bad;
  }
}

TEST(MeasureTest, RefusesMissingExtraAndGarbledValues) {
  for (const std::string_view bad :
       {"tolerance", "entropy:1", "tolerance:", "tolerance:1e-3x", "singular_values:2.5"}) {
    EXPECT_THAT(ParseMeasure(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(std::string(bad))))
        << bad;
  }
}

TEST(MeasureTest, WhatTheCallerWroteIsQuotedAndCut) {
  EXPECT_THAT(ParseMeasure("/etc/passwd"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("measure '/etc/passwd';")));
  const std::string most(63, 'x');
  EXPECT_THAT(ParseMeasure(most + "\u00e9 and more"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'" + most + "...'")));
}

TEST(MeasureTest, AnUnknownKindIsRefusedWithTheKnownOnes) {
  EXPECT_THAT(ParseMeasure("rank:3"), StatusIs(absl::StatusCode::kInvalidArgument,
                                               HasSubstr("tolerance, relative, head_relative")));
}

}  // namespace
}  // namespace ess
