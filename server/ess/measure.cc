#include "server/ess/measure.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "fmt/format.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"

namespace ess {
namespace {

constexpr int64_t kMaxSingularValues = 1024;

enum class Argument { kNone, kPositive, kFraction, kCount };

struct KindSpelling {
  Measure::Kind kind;
  std::string_view name;
  Argument argument;
};

constexpr std::array kSpellings = {
    KindSpelling{Measure::Kind::kTolerance, "tolerance", Argument::kPositive},
    KindSpelling{Measure::Kind::kRelative, "relative", Argument::kFraction},
    KindSpelling{Measure::Kind::kHeadRelative, "head_relative", Argument::kFraction},
    KindSpelling{Measure::Kind::kEntropy, "entropy", Argument::kNone},
    KindSpelling{Measure::Kind::kSpectralNorm, "spectral_norm", Argument::kNone},
    KindSpelling{Measure::Kind::kFrobeniusNorm, "frobenius_norm", Argument::kNone},
    KindSpelling{Measure::Kind::kSingularValues, "singular_values", Argument::kCount},
    KindSpelling{Measure::Kind::kCausal, "causal", Argument::kNone},
};

const KindSpelling& SpellingOf(Measure::Kind kind) {
  for (const KindSpelling& spelling : kSpellings) {
    if (spelling.kind == kind) return spelling;
  }
  std::abort();  // Every kind has its line in the table.
}

std::string KnownKinds() {
  std::string kinds;
  for (const KindSpelling& spelling : kSpellings) {
    if (!kinds.empty()) kinds += ", ";
    kinds += spelling.name;
  }
  return kinds;
}

// The caller's text.
std::string Quoted(std::string_view text) {
  return fmt::format("'{}'", CutText(std::string(text), /*max_bytes=*/64));
}

template <typename Number>
absl::StatusOr<Number> ParseNumber(std::string_view text, std::string_view measure) {
  Number value{};
  const char* end = text.data() + text.size();
  const std::from_chars_result result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end) {
    return absl::InvalidArgumentError(
        fmt::format("measure {}: {} is not a number in range", Quoted(measure), Quoted(text)));
  }
  return value;
}

std::string ShortestDecimal(double value) {
  char text[32];
  for (int digits = 1; digits <= 17; ++digits) {
    std::snprintf(text, sizeof(text), "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  return text;
}

}  // namespace

absl::Status ValidateMeasure(const Measure& measure) {
  const KindSpelling& spelling = SpellingOf(measure.kind);
  switch (spelling.argument) {
    case Argument::kNone:
      return absl::OkStatus();
    case Argument::kPositive:
      if (std::isfinite(measure.value) && measure.value > 0) return absl::OkStatus();
      return absl::InvalidArgumentError(
          fmt::format("measure {}: {} is not allowed; it must be finite and greater than 0",
                      spelling.name, measure.value));
    case Argument::kFraction:
      if (measure.value > 0 && measure.value < 1) return absl::OkStatus();
      return absl::InvalidArgumentError(
          fmt::format("measure {}: {} is not allowed; it must be greater than 0 and less than 1",
                      spelling.name, measure.value));
    case Argument::kCount:
      if (measure.count >= 1 && measure.count <= kMaxSingularValues) return absl::OkStatus();
      return absl::InvalidArgumentError(
          fmt::format("measure {}: {} is not allowed; it must be from 1 to {}", spelling.name,
                      measure.count, kMaxSingularValues));
  }
  return absl::OkStatus();
}

absl::StatusOr<Measure> ParseMeasure(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  for (const KindSpelling& spelling : kSpellings) {
    if (spelling.name != name) continue;
    Measure measure{.kind = spelling.kind};
    const bool has_argument = colon != std::string_view::npos;
    if (has_argument != (spelling.argument != Argument::kNone)) {
      return absl::InvalidArgumentError(fmt::format("measure {}: {} takes {}", Quoted(text), name,
                                                    has_argument ? "no value"
                                                                 : "a value, as in "
                                                                   "tolerance:1e-3"));
    }
    if (spelling.argument == Argument::kCount) {
      ESS_ASSIGN_OR_RETURN(measure.count, ParseNumber<int64_t>(text.substr(colon + 1), text));
    } else if (has_argument) {
      ESS_ASSIGN_OR_RETURN(measure.value, ParseNumber<double>(text.substr(colon + 1), text));
    }
    ESS_RETURN_IF_ERROR(ValidateMeasure(measure));
    return measure;
  }
  return absl::InvalidArgumentError(
      fmt::format("unknown measure {}; known are {}", Quoted(text), KnownKinds()));
}

std::string FormatMeasure(const Measure& measure) {
  const KindSpelling& spelling = SpellingOf(measure.kind);
  switch (spelling.argument) {
    case Argument::kNone:
      return std::string(spelling.name);
    case Argument::kCount:
      return fmt::format("{}:{}", spelling.name, measure.count);
    default:
      return fmt::format("{}:{}", spelling.name, ShortestDecimal(measure.value));
  }
}

}  // namespace ess
