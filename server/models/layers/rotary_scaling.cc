// Reading the scaling of rotary frequencies from config.json; rotary_frequencies.cc computes them.
#include "server/models/layers/rotary_scaling.h"

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::models {
namespace {

using Kind = RotaryScaling::Kind;

constexpr std::string_view kFullAttention = "full_attention";
constexpr double kMaxFactor = 1e6;
constexpr double kMaxTheta = 1e15;

struct NamedKind {
  const char* name;
  Kind kind;
};
constexpr NamedKind kKinds[] = {
    {"default", Kind::kDefault},
    {"linear", Kind::kLinear},
    {"dynamic", Kind::kDynamic},
    {"yarn", Kind::kYarn},
    {"llama3", Kind::kLlama3},
    {"longrope", Kind::kLongRope},
    {"su", Kind::kLongRope},  // Name of longrope in older files.
    {"proportional", Kind::kProportional},
};

absl::StatusOr<Kind> ReadKind(const ConfigReader& parameters) {
  std::vector<std::string> names;
  for (const NamedKind& named : kKinds) names.emplace_back(named.name);
  const std::string_view key = parameters.Has("rope_type") ? "rope_type" : "type";
  ESS_ASSIGN_OR_RETURN(const std::string name, parameters.Choice(key, "default", names));
  for (const NamedKind& named : kKinds) {
    if (named.name == name) return named.kind;
  }
  ESS_CHECK(false && "Choice returns one of the names");
  return Kind::kDefault;
}

// The object that holds the parameters, whichever of the spellings the file uses.
absl::StatusOr<std::optional<ConfigReader>> FindParameters(const ConfigReader& config,
                                                           std::string_view layer_type) {
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    ESS_ASSIGN_OR_RETURN(const std::optional<ConfigReader> parameters, config.Object(key));
    if (!parameters.has_value() || parameters->empty()) continue;
    ESS_ASSIGN_OR_RETURN(const std::optional<ConfigReader> of_type, parameters->Object(layer_type));
    if (of_type.has_value()) return of_type;
    if (layer_type == kFullAttention) return parameters;
  }
  return std::nullopt;
}

// YaRN's temperature: 0.1 scale ln(factor) + 1.
double YarnTemperature(double factor, double scale) {
  return factor <= 1 ? 1 : 0.1 * scale * std::log(factor) + 1;
}

absl::Status ReadYarn(const ConfigReader& parameters, RotaryScaling& scaling) {
  const double ratio = static_cast<double>(scaling.max_positions) /
                       static_cast<double>(scaling.original_max_positions);
  ESS_ASSIGN_OR_RETURN(scaling.factor, parameters.Number("factor", ratio, 0, kMaxFactor));
  if (scaling.factor <= 0) return parameters.Unsupported("factor", "above 0");
  if (ratio != scaling.factor && ratio != 1) {
    ESS_LOG(warn, "{} is {} but the position limits imply {}; taking the file's value",
            parameters.Name("factor"), scaling.factor, ratio);
  }
  ESS_ASSIGN_OR_RETURN(const double scale, parameters.Number("mscale", 0, 0, kMaxFactor));
  const double all_dim = scaling.mscale_all_dim;
  const double temperature =
      scale != 0 && all_dim != 0
          ? YarnTemperature(scaling.factor, scale) / YarnTemperature(scaling.factor, all_dim)
          : YarnTemperature(scaling.factor, 1);
  ESS_ASSIGN_OR_RETURN(scaling.attention_factor,
                       parameters.Number("attention_factor", temperature, 0, kMaxFactor));
  ESS_ASSIGN_OR_RETURN(scaling.beta_fast, parameters.Number("beta_fast", 32, 0, kMaxFactor));
  ESS_ASSIGN_OR_RETURN(scaling.beta_slow, parameters.Number("beta_slow", 1, 0, kMaxFactor));
  // Zero means the default to transformers.
  if (scaling.beta_fast == 0) scaling.beta_fast = 32;
  if (scaling.beta_slow == 0) scaling.beta_slow = 1;
  ESS_ASSIGN_OR_RETURN(scaling.truncate, parameters.Bool("truncate", true));
  if (scaling.theta == 1) return parameters.Unsupported("rope_theta", "other than 1 with yarn");
  return absl::OkStatus();
}

absl::Status ReadLongRope(const ConfigReader& parameters, RotaryScaling& scaling) {
  const int64_t pairs = scaling.head_dim / 2;
  ESS_ASSIGN_OR_RETURN(scaling.short_factor,
                       parameters.Numbers("short_factor", pairs, 1e-6, kMaxFactor));
  ESS_ASSIGN_OR_RETURN(scaling.long_factor,
                       parameters.Numbers("long_factor", pairs, 1e-6, kMaxFactor));
  const double original = static_cast<double>(scaling.original_max_positions);
  ESS_ASSIGN_OR_RETURN(
      scaling.factor,
      parameters.Number("factor", static_cast<double>(scaling.max_positions) / original, 0,
                        kMaxFactor));
  if (scaling.original_max_positions < 2) {
    return parameters.Contradiction(
        "longrope needs original_max_position_embeddings of at least 2");
  }
  const double temperature =
      scaling.factor <= 1 ? 1 : std::sqrt(1 + std::log(scaling.factor) / std::log(original));
  ESS_ASSIGN_OR_RETURN(scaling.attention_factor,
                       parameters.Number("attention_factor", temperature, 0, kMaxFactor));
  return absl::OkStatus();
}

absl::Status ReadLlama3(const ConfigReader& parameters, RotaryScaling& scaling) {
  ESS_ASSIGN_OR_RETURN(scaling.factor, parameters.Number("factor", std::nullopt, 1, kMaxFactor));
  ESS_ASSIGN_OR_RETURN(scaling.low_frequency_factor,
                       parameters.Number("low_freq_factor", std::nullopt, 1e-6, kMaxFactor));
  ESS_ASSIGN_OR_RETURN(scaling.high_frequency_factor,
                       parameters.Number("high_freq_factor", std::nullopt, 1e-6, kMaxFactor));
  if (scaling.high_frequency_factor <= scaling.low_frequency_factor) {
    return parameters.Contradiction(
        fmt::format("{} is {}, which is not above {} = {}", parameters.Name("high_freq_factor"),
                    scaling.high_frequency_factor, parameters.Name("low_freq_factor"),
                    scaling.low_frequency_factor));
  }
  return absl::OkStatus();
}

// The length before extension: the file's own key wins over the one among the parameters.
absl::StatusOr<int64_t> ReadOriginalMaxPositions(const ConfigReader& config,
                                                 const ConfigReader& parameters,
                                                 int64_t max_positions) {
  constexpr std::string_view kKey = "original_max_position_embeddings";
  return config.Has(kKey) ? config.Size(kKey, std::nullopt) : parameters.Size(kKey, max_positions);
}

absl::Status ReadKindParameters(const ConfigReader& parameters, RotaryScaling& scaling) {
  if (scaling.kind != Kind::kDefault) {
    ESS_ASSIGN_OR_RETURN(scaling.mscale_all_dim,
                         parameters.Number("mscale_all_dim", 0, 0, kMaxFactor));
  }
  switch (scaling.kind) {
    case Kind::kDefault:
      return absl::OkStatus();
    case Kind::kLinear: {
      ESS_ASSIGN_OR_RETURN(scaling.factor,
                           parameters.Number("factor", std::nullopt, 1, kMaxFactor));
      return absl::OkStatus();
    }
    case Kind::kDynamic: {
      ESS_ASSIGN_OR_RETURN(scaling.factor,
                           parameters.Number("factor", std::nullopt, 1, kMaxFactor));
      if (scaling.head_dim > 2) return absl::OkStatus();
      return parameters.Contradiction("dynamic rope needs a head_dim above 2");
    }
    case Kind::kYarn:
      return ReadYarn(parameters, scaling);
    case Kind::kLongRope:
      return ReadLongRope(parameters, scaling);
    case Kind::kLlama3:
      return ReadLlama3(parameters, scaling);
    case Kind::kProportional: {
      ESS_ASSIGN_OR_RETURN(scaling.factor, parameters.Number("factor", 1, 1, kMaxFactor));
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

// kProportional lets whole pairs stand still; the other kinds leave the last dimensions out.
absl::StatusOr<int64_t> RotatedDimensions(const ConfigReader& config, int64_t head_dim,
                                          const RotaryScaling& scaling, const RotaryKeys& keys,
                                          std::string_view fraction_name) {
  int64_t rotated = head_dim;
  if (scaling.kind != Kind::kProportional && scaling.rotated_fraction != 1) {
    if (!keys.may_be_partial) {
      return config.UnsupportedValue(fraction_name, scaling.rotated_fraction, "1");
    }
    rotated = static_cast<int64_t>(static_cast<double>(head_dim) * scaling.rotated_fraction);
  }
  if (rotated > 0 && rotated % 2 == 0) return rotated;
  return config.Contradiction(
      fmt::format("head_dim is {}, of which {} dimensions rotate; rotary embeddings need an even "
                  "number of them, at least 2",
                  head_dim, rotated));
}

}  // namespace

int64_t RotaryScaling::PositionLimit() const {
  if (kind != Kind::kDynamic) return max_positions;
  return static_cast<int64_t>(factor * static_cast<double>(max_positions));
}

double RotaryScaling::ScoreFactor() const {
  if (mscale_all_dim == 0) return 1;
  const double temperature = YarnTemperature(factor, mscale_all_dim);
  return temperature * temperature;
}

absl::StatusOr<RotaryScaling> ReadRotaryScaling(const ConfigReader& config, int64_t head_dim,
                                                int64_t max_positions, const RotaryKeys& keys) {
  RotaryScaling scaling;
  scaling.max_positions = max_positions;
  ESS_ASSIGN_OR_RETURN(scaling.theta,
                       config.Number(keys.theta, keys.default_theta, 1e-6, kMaxTheta));
  ESS_ASSIGN_OR_RETURN(scaling.rotated_fraction,
                       config.Number(keys.fraction, keys.default_fraction, 0, 1));
  std::string fraction_name = config.Name(keys.fraction);
  ESS_ASSIGN_OR_RETURN(const std::optional<ConfigReader> parameters,
                       FindParameters(config, keys.layer_type));
  if (parameters.has_value()) {
    constexpr std::string_view kFraction = "partial_rotary_factor";
    if (parameters->Has(kFraction)) fraction_name = parameters->Name(kFraction);
    ESS_ASSIGN_OR_RETURN(scaling.theta,
                         parameters->Number("rope_theta", scaling.theta, 1e-6, kMaxTheta));
    ESS_ASSIGN_OR_RETURN(scaling.rotated_fraction,
                         parameters->Number(kFraction, scaling.rotated_fraction, 0, 1));
    ESS_ASSIGN_OR_RETURN(scaling.kind, ReadKind(*parameters));
    if (keys.yarn_is_longrope && scaling.kind == Kind::kYarn) scaling.kind = Kind::kLongRope;
  }
  ESS_ASSIGN_OR_RETURN(scaling.head_dim,
                       RotatedDimensions(config, head_dim, scaling, keys, fraction_name));
  if (parameters.has_value()) {
    ESS_ASSIGN_OR_RETURN(scaling.original_max_positions,
                         ReadOriginalMaxPositions(config, *parameters, max_positions));
    ESS_RETURN_IF_ERROR(ReadKindParameters(*parameters, scaling));
  }
  return scaling;
}

}  // namespace ess::models
